//! Processes that are found again: a keeper, and the client that an ephemeral VM is leased to. Named for ever by pid
//! and start time, held and ended by pidfd, never by a bare pid.

use std::os::fd::OwnedFd;

use banger_schemas::error::{Error, Kind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::record::Process;

impl Process {
    /// Notes a process that lives.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        // Opened first: if the process ended in between, there is nothing to read.
        let _fd = pidfd(pid)?;
        Ok(Process { pid, start_time: start_time(pid)? })
    }

    /// Opens it again; `Gone` when it has ended.
    pub(crate) fn open(self) -> Result<OwnedFd> {
        let fd = pidfd(self.pid)?;
        if start_time(self.pid)? == self.start_time { Ok(fd) } else { Err(gone(self.pid)) }
    }

    /// Ends it at once; one that has ended is `Gone`.
    pub(crate) fn kill(self) -> Result<()> {
        let fd = self.open()?;
        pidfd_send_signal(&fd, Signal::KILL).map_err(|_| gone(self.pid))
    }
}

fn gone(pid: u32) -> Error {
    Error::new(Kind::Gone, format!("process {pid} has ended"))
}

fn pidfd(pid: u32) -> Result<OwnedFd> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| gone(pid))?;
    pidfd_open(raw, PidfdFlags::NONBLOCK).map_err(|_| gone(pid))
}

/// Field 22 of `/proc/PID/stat`. The name in field 2 may hold anything, so fields are counted behind its last `)`.
fn start_time(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| gone(pid))?;
    parse_start_time(&stat).ok_or_else(|| gone(pid))
}

fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_and_another_one_of_its_pid_is_not() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.open().is_ok());
        let other = Process { start_time: me.start_time + 1, ..me };
        assert_eq!(other.open().unwrap_err().kind, Kind::Gone);
        assert_eq!(other.kill().unwrap_err().kind, Kind::Gone);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_fields() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) ) {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
    }
}
