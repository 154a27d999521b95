//! The client that an ephemeral VM is leased to: a process, named for ever by its pid and start time.

use std::os::fd::OwnedFd;

use banger_schemas::error::{Error, Kind, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::record::Client;

/// Opens the process that a caller is, and notes what finds it again.
pub(crate) fn open(bus_name: &str, pid: u32) -> Result<(Client, OwnedFd)> {
    let fd = pidfd(pid)?;
    // Read after the pidfd was opened: if the process ended in between, there is nothing to read.
    let client = Client { bus_name: bus_name.to_owned(), pid, start_time: start_time(pid)? };
    Ok((client, fd))
}

/// Opens a recorded client again; `Gone` when that process has ended.
pub(crate) fn reopen(client: &Client) -> Result<OwnedFd> {
    let fd = pidfd(client.pid)?;
    if start_time(client.pid)? == client.start_time { Ok(fd) } else { Err(gone(client.pid)) }
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
        let (client, _fd) = open(":1.1", std::process::id()).unwrap();
        assert!(reopen(&client).is_ok());
        let other = Client { start_time: client.start_time + 1, ..client };
        assert_eq!(reopen(&other).unwrap_err().kind, Kind::Gone);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_fields() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) ) {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
    }
}
