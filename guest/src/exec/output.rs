//! What a command writes, carried to the host to the last byte.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use banger_schemas::codec::{HEAD, MAX_DATA};
use banger_schemas::guest::ExecOutput;
use banger_schemas::io::write_in_place;
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::time::Instant;

use super::process::{Outputs, Source};
use super::running::Group;
use crate::wire::Wire;

/// With all headers no more than 64 KiB, since the port takes 32 KiB at a time, and each time costs the guest as much
/// as copying them does.
const READ: usize = MAX_DATA - 32;
/// A background process may hold the pipes of a command that ended: after so much silence nobody waits for it.
const SILENCE: Duration = Duration::from_millis(250);
/// And where it is not silent: everything that the command itself wrote fits into two pipes, the largest of which
/// (fs.pipe-max-size) are half as long.
const AFTERMATH: usize = 2 * 1024 * 1024;
/// Before this the aftermath is not cut short, however much it is.
const AFTERMATH_TIME: Duration = Duration::from_secs(2);

pub(super) struct Output {
    streams: Vec<Stream>,
}

struct Stream {
    source: Option<Source>,
    kind: fn(Vec<u8>) -> ExecOutput,
}

/// What was read at once, behind room for its head.
struct Piece {
    buffer: Vec<u8>,
    kind: fn(Vec<u8>) -> ExecOutput,
}

impl Output {
    pub(super) fn new(outputs: Outputs) -> Self {
        let stream = |(source, kind)| Stream { source: Some(source), kind };
        Output { streams: outputs.into_iter().map(stream).collect() }
    }

    /// Carries all output until the command has ended and its pipes have; gives back the last frame.
    pub(super) async fn forward(
        &mut self,
        child: &mut Child,
        group: &Group,
        wire: &mut Wire,
    ) -> io::Result<ExecOutput> {
        while self.is_open() {
            tokio::select! {
                piece = self.next() => self.pass(piece, wire).await?,
                status = child.wait() => {
                    group.over();
                    self.drain(wire).await?;
                    return Ok(last_frame(status?));
                }
            }
        }
        let status = child.wait().await;
        group.over();
        Ok(last_frame(status?))
    }

    /// Carries what is left after the command's end.
    async fn drain(&mut self, wire: &mut Wire) -> io::Result<()> {
        let ended = Instant::now();
        let mut carried = 0;
        while self.is_open() && (carried < AFTERMATH || ended.elapsed() < AFTERMATH_TIME) {
            let Ok(piece) = tokio::time::timeout(SILENCE, self.next()).await else { break };
            carried += piece.as_ref().map_or(0, Piece::len);
            self.pass(piece, wire).await?;
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.streams.iter().any(|stream| stream.source.is_some())
    }

    /// The next bytes of any stream; `None` when one of them ended.
    async fn next(&mut self) -> Option<Piece> {
        match &mut self.streams[..] {
            [one] => one.next().await,
            [one, other] => tokio::select! {
                piece = one.next(), if one.source.is_some() => piece,
                piece = other.next(), if other.source.is_some() => piece,
            },
            _ => std::future::pending().await,
        }
    }

    async fn pass(&mut self, piece: Option<Piece>, wire: &mut Wire) -> io::Result<()> {
        match piece {
            Some(mut piece) => write_in_place(wire, piece.kind, &mut piece.buffer).await,
            None => Ok(()),
        }
    }
}

impl Stream {
    /// Cancel safe: bytes are taken out of the pipe only by a read that completes.
    async fn next(&mut self) -> Option<Piece> {
        let Some(source) = &mut self.source else { return std::future::pending().await };
        let mut buffer = Vec::with_capacity(HEAD + READ);
        buffer.resize(HEAD, 0);
        match source.read_buf(&mut buffer).await {
            Ok(length) if length > 0 => Some(Piece { buffer, kind: self.kind }),
            // A pipe that cannot be read any more has ended too.
            _ => {
                self.source = None;
                None
            }
        }
    }
}

impl Piece {
    fn len(&self) -> usize {
        self.buffer.len() - HEAD
    }
}

fn last_frame(status: ExitStatus) -> ExecOutput {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => ExecOutput::Exited(byte(code)),
        (None, signal) => ExecOutput::Signaled(byte(signal.unwrap_or(0))),
    }
}
