//! What the multiplexer reads, watched for the hello of a host that took another's place.
//!
//! A transport that is one long byte stream does not always tell that its host was replaced: a restored guest is
//! one example. The new host's hello then arrives in the middle of the old conversation. Between two frames it is
//! no frame, and the multiplexer fails; inside a frame it would be swallowed, and both sides would wait for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use banger_schemas::guest::hello::{LEN, Scanner};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A host says nothing after its hello. One that is alive does not stop in the middle of a frame for so long,
/// right behind bytes that look like a hello.
const SILENCE: Duration = Duration::from_millis(100);
/// yamux: version, type, flags (2), stream (4), length (4); only the type 0, data, has a body.
const HEADER: usize = 12;

/// A transport that remembers the end of what was read from it.
pub(super) struct Watched<T> {
    transport: T,
    position: Position,
    tail: [u8; LEN],
    silence: Option<Pin<Box<Sleep>>>,
}

/// Where in the multiplexer's framing the next byte belongs.
enum Position {
    Header { bytes: [u8; HEADER], length: usize },
    Body { rest: usize },
}

const FRAME_START: Position = Position::Header { bytes: [0; HEADER], length: 0 };

impl<T> Watched<T> {
    pub(super) fn new(transport: T) -> Self {
        Watched { transport, position: FRAME_START, tail: [0xff; LEN], silence: None }
    }

    /// The last bytes that were read: where the conversation broke off, a hello may have begun.
    pub(super) fn tail(&self) -> [u8; LEN] {
        self.tail
    }

    fn note(&mut self, mut bytes: &[u8]) {
        let recent = &bytes[bytes.len().saturating_sub(LEN)..];
        self.tail.rotate_left(recent.len());
        self.tail[LEN - recent.len()..].copy_from_slice(recent);
        while let Some(first) = bytes.first() {
            match &mut self.position {
                Position::Header { bytes: header, length } => {
                    header[*length] = *first;
                    *length += 1;
                    bytes = &bytes[1..];
                    if *length == HEADER {
                        self.position = after(header);
                    }
                }
                Position::Body { rest } => {
                    let taken = bytes.len().min(*rest);
                    *rest -= taken;
                    bytes = &bytes[taken..];
                    if *rest == 0 {
                        self.position = FRAME_START;
                    }
                }
            }
        }
    }

    fn swallowed_a_hello(&self) -> bool {
        let mut scanner = Scanner::for_agent();
        matches!(self.position, Position::Body { .. })
            && self.tail.iter().any(|byte| scanner.host_hello(*byte).is_some_and(|hello| hello.oldest > 0))
    }
}

fn after(header: &[u8; HEADER]) -> Position {
    let [_, kind, .., a, b, c, d] = *header;
    match usize::try_from(u32::from_be_bytes([a, b, c, d])) {
        Ok(rest) if kind == 0 && rest > 0 => Position::Body { rest },
        _ => FRAME_START,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.transport).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.silence = None;
                self.note(&buf.filled()[before..]);
                Poll::Ready(result)
            }
            Poll::Pending if self.swallowed_a_hello() => {
                let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
                let replaced = || io::Error::new(io::ErrorKind::ConnectionAborted, "another host said hello");
                silence.as_mut().poll(cx).map(|()| Err(replaced()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
