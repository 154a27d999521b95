//! Becoming a VM: everything that makes this guest different from another, done in one step.

mod files;
mod hosts;
mod keys;
mod network;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::{fs, time::Duration};

use banger_schemas::guest::{Address, Identity, Ready};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};

use crate::init::{self, Door, Progress};
use crate::root::Root;
use crate::{log, sys};

/// On the system disk, out of the guest's sight: this disk has belonged to a VM before.
const MARKER: &str = "identified";

/// What failed without making the VM useless.
#[derive(Debug, Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn note(&mut self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            let warning = format!("{what}: {error}");
            log::error(&warning);
            self.0.push(warning);
        }
    }
}

/// An identity that was begun.
#[derive(Debug)]
pub(crate) struct Begun {
    warnings: Warnings,
    link: JoinHandle<io::Result<()>>,
}

/// Does what is the same for everybody, and needs the image's files: none of it is missed where it fails, since an identity
/// does it again.
pub(crate) async fn prepare() {
    let (looped, found) = tokio::join!(link(None), spawn_blocking(|| init::find_or_stand_in(true)));
    let grouped = found.map_or_else(|error| Err(error.into()), |(_, grouped)| grouped);
    for result in [looped, grouped] {
        if let Err(error) = result {
            log::info(&format!("left to the identity: {error}"));
        }
    }
}

/// Takes on what needs no disks, so that it can be done while they are being mounted. May be repeated.
///
/// # Errors
/// A sentence for the user when this is no identity; nothing has been changed then.
pub(crate) fn begin(identity: &Identity) -> Result<Begun, String> {
    if !is_label(&identity.hostname) {
        return Err(format!("{:?} is no host name", identity.hostname));
    }
    let mut warnings = Warnings::default();
    // Randomness first: keys and ids that anything draws from here on must be this VM's own.
    warnings.note("the random pool was not seeded", sys::entropy::credit(identity.seed));
    warnings.note("the clock was not set", set_clock(identity.clock_ns));
    let address = identity.address.clone();
    Ok(Begun { warnings, link: spawn_local(async move { link(address.as_ref()).await }) })
}

/// Takes on the rest of an identity that was begun.
///
/// # Errors
/// A sentence for the user.
pub(crate) async fn become_vm(
    identity: &Identity,
    Begun { mut warnings, link }: Begun,
    root: &Arc<Root>,
    door: &Door,
    progress: &Progress,
) -> Result<Ready, String> {
    // Beside the network, which takes as long.
    let (whose, root, start_init) = (identity.clone(), root.clone(), identity.start_init);
    let written = spawn_blocking(move || write(&whose, &root));
    let found = spawn_blocking(move || init::find_or_stand_in(start_init));
    let (linked, written, found) = tokio::join!(link, written, found);
    warnings.note("the network is not up", linked.unwrap_or_else(|error| Err(error.into())));
    warnings.0.extend(written.map_err(|error| error.to_string())?.0);
    let (found, grouped) = found.map_err(|error| error.to_string())?;
    warnings.note("no control groups", grouped);
    let started = match &found {
        Some(found) => {
            let started = init::start(found, door, progress).await;
            warnings.note("the image's init was not started", started.map_err(io::Error::other));
            progress.init().is_some()
        }
        None => false,
    };
    if !started && found.is_some() {
        warnings.note("no control groups", init::cgroup::mount_for_nobody_else());
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|e| format!("no boot id: {e}"))?;
    Ok(Ready { boot_id: boot_id.trim_end().to_owned(), init: started, warnings: warnings.0 })
}

/// Everything that is a file, and what went wrong with it.
fn write(identity: &Identity, root: &Root) -> Warnings {
    let mut warnings = Warnings::default();
    let mut note = |what: &str, result: io::Result<()>| warnings.note(what, result);
    note("the host name was not set", name(&identity.hostname));
    note("the machine id was not set", machine_id(identity.machine_id));
    if let Some(address) = &identity.address {
        note("DNS is not set up", resolver(&address.dns));
    }
    let marker = root.system(MARKER);
    let first = !marker.exists();
    if let Some(key) = &identity.ssh_host_key {
        note("the ssh host key was not installed", keys::install_host_key(Path::new("/etc/ssh"), key, first));
    }
    note("root's ssh keys were not installed", keys::authorize(Path::new("/root"), &identity.authorized_keys));
    if first {
        note("the first boot is not remembered", fs::write(marker, &identity.vm_id));
    }
    warnings
}

/// What a repeated identity renews: time has passed, and a restored guest draws old random numbers.
pub(crate) fn refresh(identity: &Identity) {
    for result in [sys::entropy::credit(identity.seed), set_clock(identity.clock_ns)] {
        if let Err(error) = result {
            log::error(&format!("cannot renew clock and randomness: {error}"));
        }
    }
}

/// An RFC 1123 label, the only thing that may stand in the files below.
fn is_label(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| plain(byte) || byte == b'-')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

fn set_clock(nanoseconds: u64) -> io::Result<()> {
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(Duration::from_nanos(nanoseconds)))?)
}

fn name(hostname: &str) -> io::Result<()> {
    nix::unistd::sethostname(hostname)?;
    files::replace(Path::new("/etc/hostname"), format!("{hostname}\n").as_bytes(), 0o644)?;
    let hosts = fs::read("/etc/hosts").unwrap_or_default();
    let hosts = hosts::render(&String::from_utf8_lossy(&hosts), hostname);
    files::replace(Path::new("/etc/hosts"), hosts.as_bytes(), 0o644)
}

fn machine_id(id: [u8; 16]) -> io::Result<()> {
    let text = format!("{:032x}\n", u128::from_be_bytes(id));
    files::replace(Path::new("/etc/machine-id"), text.as_bytes(), 0o444)?;
    // Usually a link to the above; an image whose D-Bus made its own would share it among all VMs.
    let dbus = Path::new("/var/lib/dbus/machine-id");
    match fs::symlink_metadata(dbus) {
        Ok(metadata) if metadata.is_file() => files::replace(dbus, text.as_bytes(), 0o444),
        _ => Ok(()),
    }
}

async fn link(address: Option<&Address>) -> io::Result<()> {
    let netlink = network::connect()?;
    network::loopback(&netlink).await?;
    match address {
        Some(address) => network::configure(&netlink, address).await,
        None => Ok(()),
    }
}

fn resolver(servers: &[[u8; 4]]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    let lines: String = servers.iter().map(|ip| format!("nameserver {}\n", std::net::Ipv4Addr::from(*ip))).collect();
    files::replace(Path::new("/etc/resolv.conf"), lines.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_are_host_names() {
        assert!(["a", "box", "my-box-2", "0x"].into_iter().all(is_label));
        let long = "a".repeat(64);
        assert!(!["", "-a", "a-", "a.b", "a\nb", "a b", "ä", &long].into_iter().any(is_label));
    }
}
