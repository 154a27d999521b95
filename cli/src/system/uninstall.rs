//! `banger system uninstall`: what was installed goes, and with `--purge` what has come since.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_schemas::error::{Error, Kind};
use banger_schemas::options::Dict;
use banger_schemas::{network, vms};
use zbus::Connection;
use zbus::fdo::{self, ObjectManagerProxy};

use super::exchange::{Real, Wanted, exchange};
use super::host::{self, Which};
use super::install::tell;
use super::manifest::{Manifest, PATH};
use super::restart::installed;
use super::source::{Account, accounts};
use crate::error::Failure;
use crate::view::{note, out};

/// A service that does not answer within this is gone around.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also remove all machines, disks, images and records, and the users and groups
    #[arg(long)]
    purge: bool,
    /// End machines that run, and go on where a service cannot undo what it did to the host
    #[arg(long)]
    force: bool,
    /// The files are a package's, which removes them
    #[arg(long, hide = true)]
    packaged: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    host::require_root()?;
    let bus = host::bus_of(args.packaged).await?;
    let manifest = installed()?;
    if manifest.packaged && !args.packaged {
        let verb = if args.purge { "purge" } else { "remove" };
        return Err(Failure::new("banger is installed as a package").hint(format!("sudo apt {verb} banger")));
    }
    if let Some(bus) = &bus {
        end_machines(bus, args.force).await?;
        match retract(bus).await {
            Ok(undone) => undone.iter().for_each(|line| note(line)),
            // A package that cannot be removed would be worse.
            Err(failure) if args.force || args.packaged => note(&format!("note: {}", failure.message)),
            Err(failure) => {
                return Err(failure.hint("--force goes on; 'journalctl --boot --unit banger-network' says why"));
            }
        }
    }
    remove(bus.as_ref(), manifest).await?;
    if args.purge {
        purge()?;
    }
    out("banger is no longer installed\n")
}

/// Machines run under systemd whatever the services do, so that is who is asked.
async fn end_machines(bus: &Connection, force: bool) -> Result<(), Failure> {
    let ids = ids(&host::list(Which::Running, ["banger-vm@*.service"])?);
    if force || ids.is_empty() {
        return host::stop(&host::list(Which::All, ["banger-vm@*.service", "banger-vm@*.socket"])?);
    }
    let names = tokio::time::timeout(PATIENCE, names(bus, &ids)).await.ok().flatten().unwrap_or(ids);
    let names = names.join(" ");
    Err(Failure::new(format!("machines are running: {names}"))
        .hint(format!("'banger vm stop {names}' stops them first; --force ends them")))
}

/// The ids of the machines among some units.
fn ids(units: &[String]) -> Vec<String> {
    let id = |unit: &String| Some(unit.strip_prefix("banger-vm@")?.strip_suffix(".service")?.to_owned());
    units.iter().filter_map(id).collect()
}

/// What their owners call them, if the supervisor can say so.
async fn names(bus: &Connection, ids: &[String]) -> Option<Vec<String>> {
    let objects = ObjectManagerProxy::builder(bus).destination(vms::NAME).path(vms::PATH).build().await.ok()?;
    let managed = objects.get_managed_objects().await.ok()?;
    let text = |properties: &std::collections::HashMap<_, zbus::wire::OwnedVariant>, name: &str| {
        properties.get(name).and_then(|value| value.downcast_ref::<&str>().ok().map(str::to_owned))
    };
    let mut names: Vec<String> = managed
        .into_values()
        .filter_map(|mut interfaces| interfaces.remove(vms::VM))
        .filter(|vm| text(vm, "Id").is_some_and(|id| ids.contains(&id)))
        .filter_map(|vm| text(&vm, "Name"))
        .collect();
    names.sort();
    (names.len() == ids.len()).then_some(names)
}

/// Undoes what services did to the host beyond their own folders; what that was. A machine that has just ended may
/// still have its network for a moment.
async fn retract(bus: &Connection) -> Result<Vec<String>, Failure> {
    let no_options = (Dict::new(),);
    let begun = Instant::now();
    loop {
        let call = bus.call_method(Some(network::NAME), network::PATH, Some(network::MANAGER), "Retract", &no_options);
        let error = match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(reply)) => return Ok(reply.body().deserialize()?),
            // A service of a version that changes nothing beyond its own folders.
            Ok(Err(zbus::Error::FDO(error))) if matches!(*error, fdo::Error::UnknownMethod(_)) => return Ok(Vec::new()),
            Ok(Err(error)) => Error::from(error),
            Err(_) => Error::new(Kind::Timeout, "the network service does not answer"),
        };
        if error.kind != Kind::InUse || begun.elapsed() > PATIENCE {
            let what = "the network's changes to this host cannot be undone";
            return Err(Failure::new(format!("{what}: {}", error.message)));
        }
        tokio::time::sleep(PATIENCE / 50).await;
    }
}

/// First the bus forgets the services, so that nobody starts them again; then they stop.
async fn remove(bus: Option<&Connection>, manifest: Manifest) -> Result<(), Failure> {
    let files = if manifest.packaged { Vec::new() } else { manifest.files.into_keys().collect() };
    let gone = files.into_iter().chain([PathBuf::from(PATH)]).collect();
    let exchange =
        exchange(&Real, Path::new("/"), Wanted { gone, gone_folders: manifest.folders, ..Wanted::default() })?;
    if let Some(bus) = bus
        && let Err(failure) = stop(bus).await
    {
        let failure = exchange.undo(failure);
        return Err(match host::reload(bus).await {
            Ok(()) => failure,
            Err(second) => Failure { message: format!("{}; and then: {}", failure.message, second.message), ..failure },
        });
    }
    tell(&exchange.keep());
    remove_tree("/run/banger")
}

async fn stop(bus: &Connection) -> Result<(), Failure> {
    host::reload(bus).await?;
    let loose = ["banger-build@*.service", "banger-vm@*.socket", "banger.slice"].map(str::to_owned);
    host::stop(&host::list(Which::All, host::units().chain(loose))?)
}

fn purge() -> Result<(), Failure> {
    remove_tree("/var/lib/banger")?;
    accounts().iter().try_for_each(|account| match account {
        Account::User(name) if matches!(nix::unistd::User::from_name(name), Ok(Some(_))) => {
            host::run("userdel", [name])
        }
        Account::Group(name) if matches!(nix::unistd::Group::from_name(name), Ok(Some(_))) => {
            host::run("groupdel", [name])
        }
        _ => Ok(()),
    })
}

fn remove_tree(path: &str) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::new(format!("cannot remove {path}: {e}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn machines_are_told_from_their_sockets_and_from_other_units() {
        let units = ["banger-vm@abcdefghij.service", "banger-vm@abcdefghij.socket", "banger-vms.service"];
        assert_eq!(super::ids(&units.map(str::to_owned)), ["abcdefghij"]);
    }
}
