//! The end of a VM: everything stopped in order, everything written, then the power.

use std::convert::Infallible;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::exec::Running;
use crate::init::{Flavor, Init, cgroup};
use crate::root::Root;
use crate::{log, sys};

/// How long what `exec` started may take to go, beside an init, which would wait for it in its turn.
const HANG_UP: Duration = Duration::from_millis(500);
/// What the host needs to read the answer that was written before.
const LAST_WORD: Duration = Duration::from_millis(20);

/// Ends the VM; comes back only if the kernel refuses.
pub(crate) async fn power_off(root: Option<&Root>, init: Option<Init>, running: &Running, grace: Duration) {
    let deadline = Instant::now() + grace;
    sleep(LAST_WORD).await;
    // First, and everywhere: an interactive shell ignores SIGTERM.
    running.signal(Signal::SIGHUP);
    match init {
        Some(init) => {
            stop_init(&init);
            cgroup::signal_members(Signal::SIGTERM);
            sleep(HANG_UP.min(grace)).await;
            running.signal(Signal::SIGKILL);
            cgroup::signal_members(Signal::SIGKILL);
            // systemd and its like end the VM themselves, and this wait with it.
            tokio::time::sleep_until(deadline).await;
            log::error("the image's init did not stop in time");
        }
        None => stop_everyone(deadline).await,
    }
    let flushed = tokio::task::spawn_blocking(nix::unistd::sync).await;
    if let Err(error) = flushed {
        log::error(&format!("sync: {error}"));
    }
    if let Some(root) = root {
        make_read_only(root);
    }
    let Err(errno) = reset();
    log::error(&format!("cannot end the VM: {}", errno.desc()));
}

/// Ends the VM at once. By a reset, which every VMM ends at: Firecracker has nothing that powers a machine off.
pub(crate) fn reset() -> nix::Result<Infallible> {
    reboot(RebootMode::RB_AUTOBOOT)
}

fn stop_init(init: &Init) {
    let result = match init.flavor {
        Flavor::Systemd => sys::process::kill(1, sys::process::systemd_reboot_signal()).map_err(Into::into),
        Flavor::Other => reboot_program(),
    };
    if let Err(error) = result {
        log::error(&format!("cannot ask the init to stop: {error}"));
    }
}

/// sysvinit, OpenRC, runit and s6 have nothing in common but a program of this name.
fn reboot_program() -> std::io::Result<()> {
    let mut command = Command::new("/sbin/reboot");
    sys::process::lead_session(&mut command, false);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    tokio::process::Command::from(command).spawn().map(drop)
}

/// Ends all processes but PID 1 and the agent: asks, waits until the deadline, insists.
async fn stop_everyone(deadline: Instant) {
    // -1: everybody but the caller and PID 1 (kill(2)).
    let _ = sys::process::kill(-1, Signal::SIGTERM as i32);
    let _ = sys::process::kill(-1, Signal::SIGCONT as i32);
    while others_run() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let _ = sys::process::kill(-1, Signal::SIGKILL as i32);
    let killed = Instant::now() + Duration::from_secs(1);
    while others_run() && Instant::now() < killed {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether any process is left that is neither PID 1, nor the agent, nor the kernel's, nor dead already.
fn others_run() -> bool {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            return false;
        };
        // Threads of the kernel and zombies have no memory, hence no command line.
        pid != "1" && pid != own && fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty())
    })
}

/// Leaves the disks clean where nothing holds them; what was synced is safe either way.
fn make_read_only(root: &Root) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let mut targets = vec![Path::new("/").to_owned()];
    targets.extend(root.writable().map(|disk| format!("/proc/self/fd/{}", disk.as_raw_fd()).into()));
    for target in targets {
        if let Err(errno) = mount(None::<&str>, &target, None::<&str>, flags, None::<&str>) {
            log::info(&format!("{} stays writable: {}", target.display(), errno.desc()));
        }
    }
}
