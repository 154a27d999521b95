//! Starting a VMM: an empty environment, the descriptors it is meant to have, and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::fds;

/// Starts `program` with `passed` under the numbers they have here. What it prints comes out of the pipe.
pub(super) fn spawn(program: &str, arguments: &[String], passed: Vec<OwnedFd>) -> io::Result<(Child, pipe::Receiver)> {
    let (messages, printed) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed)
        .kill_on_drop(true);
    fds::inherit(&mut command, passed);
    let child = command.spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(messages.into())?))
}
