//! What an installation needs of the host, and what the host is told when files have come or gone.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use banger_bus::service::Address;
use zbus::Connection;
use zbus::fdo::DBusProxy;

use super::prefix::{Place, Prefix};
use super::source::SERVICES;
use crate::error::Failure;

const POLKIT: &str = "org.freedesktop.PolicyKit1";

/// Refuses whoever may not change the host, with the line that may.
pub(crate) fn require_root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    // With its path: sudo looks for programs elsewhere than the user does.
    let program = std::env::current_exe()?.display().to_string();
    let line: Vec<String> = std::iter::once(program).chain(std::env::args().skip(1)).collect();
    Err(Failure::new("this changes the host, which needs root").hint(format!("sudo {}", line.join(" "))))
}

/// The system bus of a host that is managed by systemd.
pub(crate) async fn bus() -> Result<Connection, Failure> {
    require_systemd()?;
    Address::System.connect().await.map_err(|e| {
        Failure::new(format!("the services need the system bus, which cannot be reached: {}", e.message))
            .hint("sudo apt install dbus; sudo systemctl start dbus")
    })
}

/// The same; none where a package is unpacked and nothing runs, as in an image of a host that is being made.
pub(crate) async fn bus_of(packaged: bool) -> Result<Option<Connection>, Failure> {
    if packaged && !is_booted() { Ok(None) } else { bus().await.map(Some) }
}

pub(crate) async fn require_polkit(bus: &Connection) -> Result<(), Failure> {
    let dbus = DBusProxy::new(bus).await?;
    let names = [dbus.list_names().await, dbus.list_activatable_names().await];
    let names = names.into_iter().collect::<Result<Vec<_>, _>>().map_err(zbus::Error::from)?;
    if names.iter().flatten().any(|name| name.as_str() == POLKIT) {
        return Ok(());
    }
    Err(Failure::new("the services ask polkit who may do what, and it is not installed")
        .hint("sudo apt install polkitd"))
}

/// sd_booted(3).
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

pub(crate) fn require_systemd() -> Result<(), Failure> {
    if is_booted() {
        return Ok(());
    }
    Err(Failure::new("the services are units of systemd, and this host was not booted with it")
        .hint("banger works without: every command starts what it needs"))
}

/// Who unpacks packages, which takes a range of ids (subuid(5)).
const BUILDER: &str = "banger-images";
/// As many ids as files of a distribution may belong to.
const IDS: u32 = 65_536;
/// Far above where useradd(8) begins with ordinary users' ranges.
const FIRST_ID: u32 = 500_000_000;

/// Gives a user a range of subordinate ids, unless it has one. `userdel` takes it away again.
fn give_ids(user: &str) -> Result<(), Failure> {
    let [uids, gids] = ["/etc/subuid", "/etc/subgid"].map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let has = |ranges: &str| ranges.lines().any(|line| line.starts_with(&format!("{user}:")));
    if has(&uids) && has(&gids) {
        return Ok(());
    }
    let first = first_free(&[uids, gids].concat());
    let range = format!("{first}-{}", first.saturating_add(IDS - 1));
    run("usermod", ["--add-subuids", &range, "--add-subgids", &range, user])
}

/// The first id of a range that nobody has.
fn first_free(ranges: &str) -> u32 {
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u32>().ok());
        fields.next()??.checked_add(fields.next()??)
    };
    ranges.lines().filter_map(end).max().unwrap_or(0).max(FIRST_ID)
}

/// Makes users and folders.
pub(crate) fn make_accounts(prefix: &Prefix) -> Result<(), Failure> {
    run("systemd-sysusers", [prefix.folder(Place::Sysusers).join("banger.conf")])?;
    give_ids(BUILDER)?;
    run("systemd-tmpfiles", [PathBuf::from("--create"), prefix.folder(Place::Tmpfiles).join("banger.conf")])
}

/// Members of this group are asked for no password.
pub(crate) fn admit(owner: &str) -> Result<(), Failure> {
    // Knows users of every source, which usermod(8) does not.
    run("gpasswd", ["--add", owner, "banger"])
}

/// Who is in it.
pub(crate) fn members() -> Vec<String> {
    nix::unistd::Group::from_name("banger").ok().flatten().map_or_else(Vec::new, |group| group.mem)
}

/// Makes systemd and the bus read their files again.
pub(crate) async fn reload(bus: &Connection) -> Result<(), Failure> {
    run("systemctl", ["daemon-reload"])?;
    // What `systemctl reload dbus` does, whichever implementation it is.
    Ok(DBusProxy::new(bus).await?.reload_config().await.map_err(zbus::Error::from)?)
}

/// Units that are there as long as banger is, but for machines.
pub(crate) fn units() -> impl Iterator<Item = String> {
    SERVICES.iter().map(|(program, _)| format!("{program}.service")).chain(["banger-build.socket".to_owned()])
}

/// Restarts what runs of these. Machines are units of their own, and run on.
pub(crate) fn restart() -> Result<(), Failure> {
    run("systemctl", std::iter::once("try-restart".to_owned()).chain(units()))
        .map_err(|failure| Failure { hint: Some("journalctl --boot --unit 'banger-*' says why".to_owned()), ..failure })
}

/// Which of the units that systemd knows of at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    Running,
    Failed,
}

/// The units among these names and patterns.
pub(crate) fn list(
    which: Which,
    patterns: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Vec<String>, Failure> {
    let which = match which {
        Which::All => "--all",
        Which::Running => "--state=active,activating,deactivating",
        Which::Failed => "--failed",
    };
    let mut words = ["list-units", which, "--plain", "--no-legend", "--full", "--"].map(OsString::from).to_vec();
    words.extend(patterns.into_iter().map(|pattern| pattern.as_ref().to_owned()));
    let units = output("systemctl", words)?;
    Ok(units.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Stops units, and forgets that some have failed: those would be listed for ever.
pub(crate) fn stop(units: &[String]) -> Result<(), Failure> {
    if units.is_empty() {
        return Ok(());
    }
    run("systemctl", ["stop", "--"].into_iter().chain(units.iter().map(String::as_str)))?;
    // The others are gone by now, and could not be named.
    let failed = list(Which::Failed, units)?;
    if failed.is_empty() { Ok(()) } else { run("systemctl", ["reset-failed".to_owned()].into_iter().chain(failed)) }
}

/// How systemd sees a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitState {
    /// `not-found` where there is no such unit.
    pub(crate) load: String,
    pub(crate) active: String,
    /// Seconds of the epoch.
    pub(crate) started: Option<i64>,
}

pub(crate) fn unit_state(unit: &str) -> Result<UnitState, Failure> {
    let properties = "--property=LoadState,ActiveState,ExecMainStartTimestamp";
    output("systemctl", ["show", "--timestamp=unix", properties, unit]).map(|text| UnitState::of(&text))
}

impl UnitState {
    /// From lines of `Name=value`.
    fn of(text: &str) -> Self {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or("");
        UnitState {
            load: value("LoadState").to_owned(),
            active: value("ActiveState").to_owned(),
            started: value("ExecMainStartTimestamp").strip_prefix('@').and_then(|seconds| seconds.parse().ok()),
        }
    }
}

/// Runs a program of the host to its end; what it says on stderr is the error.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<(), Failure> {
    output(program, arguments).map(drop)
}

/// The same, with what it says on stdout.
pub(crate) fn output<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    let Output { status, stdout, stderr } =
        command.output().map_err(|e| Failure::new(format!("cannot run {program}: {e}")))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    Err(Failure::new(format!("{program} failed ({status}): {}", said.trim().replace('\n', "; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_s_state_is_read_from_what_systemctl_says() {
        let said = "LoadState=loaded\nActiveState=active\nExecMainStartTimestamp=@1700000000\n";
        let state = UnitState { load: "loaded".into(), active: "active".into(), started: Some(1_700_000_000) };
        assert_eq!(UnitState::of(said), state);
        assert_eq!(UnitState::of("ExecMainStartTimestamp=\n").started, None);
    }

    #[test]
    fn a_range_of_ids_is_nobody_elses() {
        assert_eq!(first_free(""), FIRST_ID);
        assert_eq!(first_free("alice:100000:65536\nnonsense\nbob:x:1\n"), FIRST_ID);
        assert_eq!(first_free("alice:600000000:65536\n"), 600_065_536);
        assert_eq!(first_free("alice:4294967295:65536\n"), FIRST_ID);
    }
}
