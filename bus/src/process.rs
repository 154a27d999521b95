//! Processes that outlive whoever started them: who they are, whether they still are, and how they are ended. By boot,
//! pid and start time together, and signalled by pidfd: a pid alone may be anybody's.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_schemas::io::packet::readable;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process, told from every other that ever has the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot (proc_pid_stat(5)).
    pub start: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

impl Process {
    /// Who has this pid now.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (start, _) = stat(pid)?;
        Ok(Process { pid, start, boot: boot()? })
    }

    /// This process. Stays true over `exec`.
    pub fn myself() -> io::Result<Self> {
        Process::of(nix::unistd::getpid().as_raw())
    }

    /// A descriptor of the process, if it still lives.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Looked at after opening: if the pid had changed hands before, this shows it.
        self.alive().then_some(pidfd)
    }

    /// Whether it lives. A zombie does not.
    pub fn alive(&self) -> bool {
        let same = |(start, state)| start == self.start && !matches!(state, 'Z' | 'X');
        stat(self.pid).is_ok_and(same) && boot().is_ok_and(|boot| boot == self.boot)
    }

    /// Waits until it is gone, without looking twice.
    pub async fn ended(&self) -> io::Result<()> {
        let Some(pidfd) = self.open() else { return Ok(()) };
        // pidfd_open(2): readable when the process has ended.
        readable(pidfd).await
    }

    /// Kills it and waits until it is gone. Whether it was there.
    pub async fn end(&self) -> io::Result<bool> {
        let Some(pidfd) = self.open() else { return Ok(false) };
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Err(error) if error != Errno::SRCH => Err(error.into()),
            _ => timeout(PATIENCE, self.ended()).await?.map(|()| true),
        }
    }
}

/// What tells this boot of the host from every other.
pub fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Start time and state.
fn stat(pid: i32) -> io::Result<(u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unreadable /proc/PID/stat"))
}

/// The name in parentheses may hold anything, parentheses too.
fn parse_stat(text: &str) -> Option<(u64, char)> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // Field 3 was the state; 22 is eighteen behind the next.
    Some((fields.nth(18)?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let text = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 100 200";
        assert_eq!(parse_stat(text), Some((4242, 'S')));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_is_known_until_it_ends_and_its_pid_alone_is_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
            let process = Process::of(child.id().unwrap().cast_signed()).unwrap();
            assert!(process.alive());
            for impostor in [
                Process { start: process.start + 1, ..process.clone() },
                Process { boot: "another".into(), ..process.clone() },
            ] {
                assert!(impostor.open().is_none());
                assert!(!impostor.end().await.unwrap());
            }
            assert!(process.alive());
            assert!(process.end().await.unwrap());
            assert!(!process.alive());
            child.wait().await.unwrap();
        });
    }
}
