//! Control groups: the agent's own beside an init's, or all of them where there is no init.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{log, sys};

const ROOT: &str = "/sys/fs/cgroup";
/// Not named like a unit: systemd would look for one.
const OWN: &str = "/sys/fs/cgroup/banger-agent";

/// Mounts the hierarchy, which an init would do, with every controller for whoever makes groups in it; once.
pub(crate) fn mount_for_nobody_else() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    if is_mounted() {
        return Ok(());
    }
    mount(Some("cgroup2"), ROOT, Some("cgroup2"), flags, Some("nsdelegate"))?;
    let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        // One by one: some cannot be enabled while realtime threads run, and the others are worth having.
        if let Err(error) = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}")) {
            log::info(&format!("no {controller} controller: {error}"));
        }
    }
    Ok(())
}

/// Moves the agent out of the group that systemd puts everything into that was there before it: what is stopped
/// with that group must not be the agent.
pub(super) async fn leave_inits_group() {
    // Long enough for the slowest start; an init without control groups needs no group of ours.
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if is_mounted() && in_a_scope() {
            if let Err(error) = join_own() {
                log::error(&format!("the agent has no control group of its own: {error}"));
            }
            return;
        }
    }
}

fn is_mounted() -> bool {
    statfs(ROOT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Whether systemd has collected the agent already; to leave earlier would be to be collected again.
fn in_a_scope() -> bool {
    fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| text.trim_end().ends_with(".scope"))
}

fn join_own() -> io::Result<()> {
    fs::create_dir_all(OWN)?;
    fs::write(Path::new(OWN).join("cgroup.procs"), "0")
}

/// Signals everything that descends from the agent's commands and left their process groups; not the agent.
pub(crate) fn signal_members(signal: Signal) {
    // Where the agent has no group of its own there is nobody to find.
    let members = fs::read_to_string(Path::new(OWN).join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id().to_string();
    for pid in members.lines().filter(|pid| *pid != own).filter_map(|pid| pid.parse().ok()) {
        // Who has just ended is no error.
        let _ = sys::process::kill(pid, signal as i32);
    }
}
