//! Starting a process that outlives its starter: in a session of its own, with init as its parent, recorded by itself
//! before it does anything.
//!
//! Readiness is a byte on the child's standard input, which is the writing end of a pipe. Its messages go to a datagram
//! socket: they are read until it is ready, and afterwards writes fail without a signal and fill no disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, setsid};

use banger_bus::process::Process;

use super::process;

/// How long a child may take to be ready.
pub const LIMIT: Duration = Duration::from_secs(10);
/// More of a failed child's last words helps nobody.
const WORDS: usize = 2000;

/// The helper's side: starts `command` in `folder` and returns when it is ready. What is recorded and lives is not
/// started twice.
pub fn serve(record: &str, folder: &str, command: &[String]) -> io::Result<()> {
    // A failure means that we lead a session already, which is all that is wanted.
    let _ = setsid();
    // A service that died in the midst of this may have a successor in the midst of the same.
    let folder_of_record = Path::new(record).parent().ok_or(io::ErrorKind::InvalidInput)?;
    let _turn = Flock::lock(File::open(folder_of_record)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if process::recorded(Path::new(record))?.is_some_and(|there| there.alive()) {
        return Ok(());
    }
    let (ready, ready_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (messages, messages_end) = UnixDatagram::pair()?;
    messages.set_nonblocking(true)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["become", record, folder])
        .args(command)
        .stdin(Stdio::from(ready_end))
        .stdout(Stdio::null())
        .stderr(Stdio::from(OwnedFd::from(messages_end)))
        .spawn()?;
    let mut words = String::new();
    match wait(ready, &messages, &mut words) {
        Ok(true) => Ok(()),
        outcome => {
            let late = if outcome.is_err() { "not ready in time; " } else { "" };
            child.kill()?;
            child.wait()?;
            collect(&messages, &mut words);
            Err(io::Error::other(format!("{late}{}", words.trim())))
        }
    }
}

/// The child's side: records itself and becomes the command. Pid and start time stay what they are.
pub fn become_command(record: &str, folder: &str, program: &str, arguments: &[String]) -> io::Error {
    let prepare = || {
        std::env::set_current_dir(folder)?;
        process::record(&Process::myself()?, Path::new(record))
    };
    match prepare() {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

/// Whether the byte came. `Ok(false)` when the child closed the pipe without it, an error when time ran out.
fn wait(ready: OwnedFd, messages: &UnixDatagram, words: &mut String) -> io::Result<bool> {
    let deadline = Instant::now() + LIMIT;
    let mut ready = File::from(ready);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN), PollFd::new(messages.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, left)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let [came, spoke] = fds.map(|fd| fd.any().unwrap_or(true));
        if came {
            return Ok(ready.read(&mut [0])? == 1);
        }
        if spoke {
            collect(messages, words);
        }
    }
}

/// Takes the messages that are there.
fn collect(messages: &UnixDatagram, words: &mut String) {
    let mut buffer = [0; 1024];
    while let Ok(length) = messages.recv(&mut buffer) {
        if words.len() < WORDS {
            words.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        if length == 0 {
            break;
        }
    }
}
