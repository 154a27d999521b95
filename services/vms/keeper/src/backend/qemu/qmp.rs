//! As much of QMP as a keeper needs: one command at a time, with bounded patience for a VMM that may be hostile.
//!
//! The greeting waits in the socket until the first command, so that launching never waits for it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

/// No line of a VMM is longer.
const MAX_LINE: usize = 64 * 1024;
/// Events that may come before an answer.
const MAX_EVENTS: usize = 256;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A QMP connection.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    negotiated: bool,
    /// The last that an event said of a migration, which may come before the answer to the command that began it.
    migration: Option<String>,
    patience: Duration,
}

impl Qmp {
    pub(super) fn new(stream: UnixStream) -> Self {
        Qmp { stream: BufReader::new(stream), negotiated: false, migration: None, patience: PATIENCE }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn execute(&mut self, command: &str, arguments: Value) -> io::Result<()> {
        self.negotiate().await?;
        self.exchange(command, arguments, None).await
    }

    /// Gives the VMM a file, which commands then know by this name.
    pub(super) async fn give(&mut self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        self.negotiate().await?;
        self.exchange("getfd", json!({ "fdname": name }), Some(file)).await
    }

    /// Waits until a migration, either way, is done.
    pub(super) async fn migrated(&mut self) -> io::Result<()> {
        within(self.patience, async {
            for _ in 0..MAX_EVENTS {
                match self.migration.as_deref() {
                    Some("completed") => return Ok(()),
                    Some("failed") => return Err(io::Error::other("the migration failed")),
                    _ => drop(self.line().await?),
                }
            }
            Err(nonsense("no end of a migration among its messages"))
        })
        .await
    }

    async fn negotiate(&mut self) -> io::Result<()> {
        if !self.negotiated {
            within(self.patience, self.greeting()).await?;
            self.exchange("qmp_capabilities", Value::Null, None).await?;
            self.negotiated = true;
        }
        Ok(())
    }

    async fn greeting(&mut self) -> io::Result<()> {
        match self.line().await?.get("QMP") {
            Some(_) => Ok(()),
            None => Err(nonsense("no greeting")),
        }
    }

    async fn exchange(&mut self, command: &str, arguments: Value, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        within(self.patience, async {
            self.send(&format!("{request}\n"), file).await?;
            self.answer(command).await
        })
        .await
    }

    async fn send(&mut self, request: &str, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(file) = file else { return self.stream.write_all(request.as_bytes()).await };
        let stream = self.stream.get_ref();
        let sent = stream.async_io(Interest::WRITABLE, || {
            let (bytes, raw) = ([IoSlice::new(request.as_bytes())], [file.as_raw_fd()]);
            let rights = [ControlMessage::ScmRights(&raw)];
            Ok(sendmsg::<()>(stream.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)?)
        });
        // A line of a hundred bytes goes in one piece, or the socket is full of what nobody reads.
        if sent.await? == request.len() { Ok(()) } else { Err(nonsense("it takes half a command")) }
    }

    async fn answer(&mut self, command: &str) -> io::Result<()> {
        for _ in 0..MAX_EVENTS {
            let reply = self.line().await?;
            if reply.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = reply.get("error") {
                let what = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(io::Error::other(format!("{command} was refused: {what}")));
            }
        }
        Err(nonsense("no answer among its messages"))
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        let message: Value = match line.last() {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(b'\n') => serde_json::from_slice(&line).map_err(|error| nonsense(&error.to_string()))?,
            Some(_) if line.len() == MAX_LINE => return Err(nonsense("a line without an end")),
            Some(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        if message.get("event").and_then(Value::as_str) == Some("MIGRATION") {
            self.migration = message.pointer("/data/status").and_then(Value::as_str).map(str::to_owned);
        }
        Ok(message)
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the VMM's answer makes no sense: {what}"))
}

async fn within(patience: Duration, step: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::time::timeout(patience, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
    const OK: &[u8] = b"{\"return\": {}}\r\n";
    const EVENT: &[u8] = b"{\"event\": \"RESET\", \"data\": {}}\r\n";

    /// A connection to a VMM that says all this, whatever it is asked.
    fn connected_to(wire: &[&[u8]]) -> Qmp {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let wire = wire.concat();
        tokio::spawn(async move {
            drop(theirs.write_all(&wire).await);
            std::future::pending::<()>().await;
            drop(theirs);
        });
        Qmp { patience: Duration::from_millis(200), ..Qmp::new(ours) }
    }

    async fn answered_with(wire: &[&[u8]]) -> io::Result<()> {
        connected_to(wire).execute("quit", Value::Null).await
    }

    #[tokio::test]
    async fn a_migration_is_over_when_it_says_so_whether_before_or_after_the_answer() {
        let says =
            |status| format!("{{\"event\": \"MIGRATION\", \"data\": {{\"status\": \"{status}\"}}}}\n").into_bytes();
        let (done, failed, active) = (says("completed"), says("failed"), says("active"));
        for order in [[&active[..], &done, OK], [&active, OK, &done]] {
            let mut qmp = connected_to(&[&[GREETING, OK], &order[..]].concat());
            qmp.execute("migrate", Value::Null).await.unwrap();
            qmp.migrated().await.unwrap();
        }
        let mut qmp = connected_to(&[GREETING, OK, OK, &failed]);
        qmp.execute("migrate", Value::Null).await.unwrap();
        assert_eq!(qmp.migrated().await.unwrap_err().to_string(), "the migration failed");
        let mut qmp = connected_to(&[GREETING, OK, OK, &active]);
        qmp.execute("migrate", Value::Null).await.unwrap();
        assert_eq!(qmp.migrated().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_file_goes_with_its_command() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp { negotiated: true, patience: Duration::from_millis(200), ..Qmp::new(ours) };
        let given = std::fs::File::open("/dev/null").unwrap();
        assert!(qmp.give("devices", std::os::fd::AsFd::as_fd(&given)).await.is_err(), "nobody answers");
        let (mut bytes, mut room) = ([0; 256], nix::cmsg_space!([std::os::fd::RawFd; 2]));
        let mut into = [io::IoSliceMut::new(&mut bytes)];
        let got = nix::sys::socket::recvmsg::<()>(theirs.as_raw_fd(), &mut into, Some(&mut room), MsgFlags::empty());
        let got = got.unwrap();
        assert_eq!(got.cmsgs().unwrap().count(), 1);
        let length = got.bytes;
        let request: Value = serde_json::from_slice(&bytes[..length]).unwrap();
        assert_eq!(request, json!({ "execute": "getfd", "arguments": { "fdname": "devices" } }));
    }

    #[tokio::test]
    async fn events_between_the_answers_are_skipped() {
        answered_with(&[GREETING, OK, EVENT, EVENT, OK]).await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let refusal = b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n";
        let error = answered_with(&[GREETING, OK, refusal]).await.unwrap_err();
        assert_eq!(error.to_string(), "quit was refused: not now");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused_at_its_limit() {
        assert_eq!(answered_with(&[&[b'{'; 2 * MAX_LINE]]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn events_without_end_are_refused() {
        let endless = EVENT.repeat(MAX_EVENTS);
        assert_eq!(answered_with(&[GREETING, OK, &endless]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn silence_is_waited_for_only_so_long() {
        assert_eq!(answered_with(&[GREETING, OK]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
