//! The first steps of PID 1: the kernel's file systems, then the fork into PID 1 and agent.
//!
//! The fork comes before any thread and any state, so that the agent outlives whatever PID 1 becomes.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::mount::{MsFlags, mount};

use crate::sys::process::{Fork, fork};
use crate::{agent, log, pid1};

pub(crate) fn run() -> ExitCode {
    kernel_filesystems();
    let (door, agents_end) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return fatal(&format!("cannot make a socket pair: {error}")),
    };
    match fork() {
        Ok(Fork::Parent(agent)) => {
            drop(agents_end);
            pid1::run(agent, door)
        }
        Ok(Fork::Child) => {
            drop(door);
            agent::run(agents_end)
        }
        Err(error) => fatal(&format!("cannot fork: {error}")),
    }
}

fn fatal(message: &str) -> ExitCode {
    log::error(message);
    // PID 1 that returns panics the kernel, which ends the VM: there is nothing better to do.
    ExitCode::FAILURE
}

fn kernel_filesystems() {
    let secure = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let table = [
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
        ("proc", "/proc", secure, ""),
        ("sysfs", "/sys", secure, ""),
    ];
    for (kind, target, flags, options) in table {
        let made = fs::create_dir_all(target).map_err(|e| e.to_string());
        let mounted = made.and_then(|()| {
            mount(Some(kind), target, Some(kind), flags, Some(options)).map_err(|errno| errno.desc().to_owned())
        });
        if let Err(error) = mounted {
            log::error(&format!("cannot mount {target}: {error}"));
        }
    }
}
