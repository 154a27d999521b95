//! As much of QMP as a keeper needs: one command at a time, with bounded patience for a VMM that may be hostile.
//!
//! The greeting waits in the socket until the first command, so that launching never waits for it.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// No line of a VMM is longer.
const MAX_LINE: usize = 64 * 1024;
/// Events that may come before an answer.
const MAX_EVENTS: usize = 256;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A QMP connection.
#[derive(Debug)]
pub(super) struct Qmp<S> {
    stream: BufReader<S>,
    negotiated: bool,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    pub(super) fn new(stream: S) -> Self {
        Qmp { stream: BufReader::new(stream), negotiated: false, patience: PATIENCE }
    }

    /// Sends a command without arguments and waits for its answer.
    pub(super) async fn execute(&mut self, command: &str) -> io::Result<()> {
        if !self.negotiated {
            within(self.patience, self.greeting()).await?;
            within(self.patience, self.exchange("qmp_capabilities")).await?;
            self.negotiated = true;
        }
        within(self.patience, self.exchange(command)).await
    }

    async fn greeting(&mut self) -> io::Result<()> {
        match self.line().await?.get("QMP") {
            Some(_) => Ok(()),
            None => Err(nonsense("no greeting")),
        }
    }

    async fn exchange(&mut self, command: &str) -> io::Result<()> {
        let request = format!("{}\n", serde_json::json!({ "execute": command }));
        self.stream.write_all(request.as_bytes()).await?;
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
        match line.last() {
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(b'\n') => serde_json::from_slice(&line).map_err(|error| nonsense(&error.to_string())),
            Some(_) if line.len() == MAX_LINE => Err(nonsense("a line without an end")),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
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
    use tokio::io::duplex;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
    const OK: &[u8] = b"{\"return\": {}}\r\n";
    const EVENT: &[u8] = b"{\"event\": \"RESET\", \"data\": {}}\r\n";

    async fn answered_with(wire: &[&[u8]]) -> io::Result<()> {
        let (ours, mut theirs) = duplex(1024 * 1024);
        theirs.write_all(&wire.concat()).await.unwrap();
        let mut qmp = Qmp { patience: Duration::from_millis(200), ..Qmp::new(ours) };
        let result = qmp.execute("quit").await;
        drop(theirs);
        result
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
