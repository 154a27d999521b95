//! Running banger's helper: one request in a namespace, the probe, and detached processes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use banger_schemas::io::packet::{Packet, PacketSocket};
use tokio::process::Command;
use tokio::time::timeout;

use banger_bus::process::Process;

use super::process;
use super::{detach, readable};
use crate::host::within::{Op, Outcome, Reply};
use crate::host::{Error, Refusal, UserNamespaces};

/// For one request: a few netlink calls and at most one run of nft.
const LIMIT: Duration = Duration::from_secs(20);

/// Does these changes inside the holder's namespace; the TAPs' descriptors come in order.
pub(super) async fn within(
    helper: &Path,
    holder: &Process,
    ops: Vec<Op>,
) -> Result<(Vec<Outcome>, Vec<OwnedFd>), Error> {
    let mut arguments = vec!["within".to_owned()];
    arguments.extend(process::arguments(holder));
    let packet: Packet<Reply> = converse(helper, &arguments, Some(&ops)).await?;
    Ok((packet.message?, packet.fds))
}

/// Tries whether this machine can do it.
pub(super) async fn probe(helper: &Path) -> Result<(), Refusal> {
    let answer: Result<Packet<Result<(), Refusal>>, Error> = converse(helper, &["probe".to_owned()], None).await;
    match answer {
        Ok(packet) => packet.message,
        Err(error) => {
            let unexplained = UserNamespaces::Unexplained { step: error.to_string(), errno: 0 };
            Err(Refusal::UserNamespacesRefused(unexplained))
        }
    }
}

/// Starts a command that outlives us, and waits until it is ready. It records itself at `record`.
pub(super) async fn start(helper: &Path, record: &Path, folder: &Path, command: &[&str]) -> Result<Process, Error> {
    // Longer than the launcher's own limit, so that its words are heard.
    let limit = detach::LIMIT + Duration::from_secs(5);
    let child = Command::new(helper)
        .arg("detach")
        .args([record, folder])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io(helper.display().to_string()))?;
    let output = timeout(limit, child.wait_with_output())
        .await
        .map_err(|_| Error::Timeout { what: "starting a helper", limit })?
        .map_err(Error::io("waiting for the helper"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Op { op: format!("starting {}", command.first().unwrap_or(&"nothing")), message });
    }
    readable(process::recorded(record), record)?.ok_or(Error::NoNamespace)
}

async fn converse<A: bincode::Decode<()>>(
    helper: &Path,
    arguments: &[String],
    request: Option<&Vec<Op>>,
) -> Result<Packet<A>, Error> {
    let (socket, end) = PacketSocket::pair().map_err(Error::io("a socket for the helper"))?;
    let mut child = Command::new(helper)
        .args(arguments)
        .stdin(Stdio::from(end))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io(helper.display().to_string()))?;
    let answer = async {
        if let Some(request) = request {
            socket.send(request, &[]).await?;
        }
        socket.receive::<A>().await
    };
    let answer = timeout(LIMIT, answer).await.map_err(|_| Error::Timeout { what: "the helper", limit: LIMIT })?;
    match answer {
        Ok(Some(packet)) => {
            // It ends by itself now; reaped here, so that no zombie waits for the next one.
            let _ = timeout(LIMIT, child.wait()).await;
            Ok(packet)
        }
        outcome => Err(last_words(child, outcome.err()).await),
    }
}

/// Why a helper ended without an answer.
async fn last_words(child: tokio::process::Child, error: Option<io::Error>) -> Error {
    let words = match timeout(LIMIT, child.wait_with_output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        _ => String::new(),
    };
    let message = error.map_or(words.clone(), |error| format!("{error}; {words}"));
    Error::Op { op: "the helper".to_owned(), message }
}
