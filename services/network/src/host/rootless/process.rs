//! Processes that outlive the service: who they are, whether they still are, and how they are ended. By boot, pid and
//! start time together, and signalled by pidfd: a pid alone may be anybody's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
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
pub struct Identity {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start: u64,
    pub boot: String,
}

impl Identity {
    /// Who has this pid now.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (start, _) = stat(pid)?;
        Ok(Identity { pid, start, boot: boot()? })
    }

    /// This process. Stays true over `exec`.
    pub fn myself() -> io::Result<Self> {
        Identity::of(nix::unistd::getpid().as_raw())
    }

    /// A descriptor of the process, if it still lives.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after opening: if the pid had changed hands before, this shows it.
        self.alive().then_some(pidfd)
    }

    /// Whether it lives. A zombie does not.
    pub fn alive(&self) -> bool {
        matches!(stat(self.pid), Ok((start, state)) if start == self.start && !matches!(state, 'Z' | 'X'))
            && boot().is_ok_and(|boot| boot == self.boot)
    }

    /// Waits until it is gone, without looking twice.
    pub async fn gone(&self) -> io::Result<()> {
        let Some(pidfd) = self.open() else { return Ok(()) };
        // pidfd_open(2): readable when the process has ended.
        readable(pidfd).await
    }

    /// Kills it and waits until it is gone.
    pub async fn end(&self) -> io::Result<()> {
        let Some(pidfd) = self.open() else { return Ok(()) };
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Err(error) if error != Errno::SRCH => Err(error.into()),
            _ => timeout(PATIENCE, self.gone()).await?,
        }
    }

    /// Writes the record, whole or not at all.
    pub fn record(&self, at: &Path) -> io::Result<()> {
        let folder = at.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let draft = at.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&draft, at)?;
        File::open(folder)?.sync_all()
    }

    /// Reads a record. One that cannot be understood is an error, not an absence: its process may live.
    pub fn recorded(at: &Path) -> io::Result<Option<Self>> {
        match fs::read(at) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As arguments of a command: pid, start, boot.
    pub fn arguments(&self) -> [String; 3] {
        [self.pid.to_string(), self.start.to_string(), self.boot.clone()]
    }

    pub fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [pid, start, boot] = arguments else { return None };
        Some(Identity { pid: pid.parse().ok()?, start: start.parse().ok()?, boot: boot.clone() })
    }
}

/// Removes a file that may be gone already.
pub fn forget(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Start time and state. The name in parentheses may hold anything, parentheses too.
fn stat(pid: i32) -> io::Result<(u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unreadable /proc/PID/stat"))
}

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

    #[tokio::test]
    async fn a_process_is_known_until_it_ends_and_its_pid_alone_is_nothing() {
        let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id().unwrap().cast_signed()).unwrap();
        assert!(identity.alive());
        let impostor = Identity { start: identity.start + 1, ..identity.clone() };
        assert!(!impostor.alive() && impostor.open().is_none());
        impostor.end().await.unwrap();
        assert!(identity.alive());
        identity.end().await.unwrap();
        assert!(!identity.alive());
        child.wait().await.unwrap();
    }

    #[test]
    fn a_record_reads_back_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("holder.json");
        assert!(Identity::recorded(&at).unwrap().is_none());
        let me = Identity::myself().unwrap();
        me.record(&at).unwrap();
        assert_eq!(Identity::recorded(&at).unwrap().as_ref(), Some(&me));
        assert_eq!(Identity::from_arguments(&me.arguments()), Some(me));
        fs::write(&at, "{").unwrap();
        assert!(Identity::recorded(&at).is_err());
    }
}
