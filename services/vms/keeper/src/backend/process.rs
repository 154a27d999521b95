//! Starting a VMM: an empty environment, the descriptors it is meant to have, and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::tap::Gate;
use crate::{fds, life};

/// A VMM whose API broke off is ending by itself, or must be ended.
const ENDING: Duration = Duration::from_millis(200);

/// What a VMM finds around it.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// The folder it is in.
    pub(super) folder: &'a Path,
    /// Where its standard output goes, if that is not one of its messages.
    pub(super) stdout: Option<OwnedFd>,
    /// How it gets its TAP, if it has to ask for it.
    pub(super) gate: Option<Gate>,
}

/// Starts `program` with `passed` under the numbers they have here. Its messages come out of the pipe.
pub(super) fn spawn(
    program: &str,
    arguments: &[String],
    passed: Vec<OwnedFd>,
    surroundings: Surroundings<'_>,
) -> io::Result<(Child, pipe::Receiver)> {
    let (messages, printed) = io::pipe()?;
    let stdout = match surroundings.stdout {
        Some(stdout) => Stdio::from(stdout),
        None => Stdio::from(printed.try_clone()?),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .current_dir(surroundings.folder)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(printed)
        .kill_on_drop(true);
    if let Some(gate) = surroundings.gate {
        fds::answer(&mut command, gate);
    }
    fds::inherit(&mut command, passed);
    let child = command.spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(messages.into())?))
}

/// Ends a VMM that did not start, and says why it did not.
pub(super) async fn failed(mut child: Child, messages: pipe::Receiver, error: io::Error) -> io::Error {
    let ended = timeout(ENDING, child.wait()).await;
    let mut what = match ended {
        Ok(Ok(status)) => format!("it ended with {status}, {error}"),
        _ => error.to_string(),
    };
    // A process that cannot be killed has ended.
    let _ = child.kill().await;
    let said = timeout(ENDING, life::tail(messages)).await.unwrap_or_default();
    if !said.is_empty() {
        what.push_str(": ");
        what.push_str(&said);
    }
    io::Error::new(error.kind(), what)
}
