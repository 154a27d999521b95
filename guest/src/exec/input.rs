//! What the host sends to a running command: bytes for its standard input, sizes, signals.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use banger_schemas::guest::ExecInput;
use banger_schemas::io::FrameReader;
use tokio::io::AsyncWriteExt;

use super::process::Sink;
use super::queue::Queue;
use super::running::Group;
use super::terminal::Terminal;
use crate::wire::Wire;

/// Bytes kept for a command that does not read. Up to here a signal behind them still arrives at once.
const KEPT: usize = 256 * 1024;
/// How often a full queue looks whether its host is still there.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Input {
    frames: FrameReader<Wire>,
    wire: Wire,
    sink: Option<Sink>,
    terminal: Option<Rc<Terminal>>,
    group: Group,
    queue: Queue,
    ended: bool,
}

impl Input {
    pub(super) fn new(
        frames: FrameReader<Wire>,
        wire: Wire,
        sink: Option<Sink>,
        terminal: Option<Rc<Terminal>>,
        group: Group,
    ) -> Self {
        Input { frames, wire, sink, terminal, group, queue: Queue::default(), ended: false }
    }

    /// Carries input until the host is gone, and says how.
    pub(super) async fn carry(&mut self, early: Option<ExecInput>) -> io::Error {
        match self.carry_on(early).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn carry_on(&mut self, early: Option<ExecInput>) -> io::Result<std::convert::Infallible> {
        if let Some(frame) = early {
            self.take(frame);
        }
        loop {
            if self.ended && self.queue.is_empty() {
                // Dropped: a pipe ends so. A terminal has other handles, and ends with its process.
                self.sink = None;
            }
            let full = self.queue.len() >= KEPT;
            tokio::select! {
                frame = self.frames.expect::<ExecInput>(), if !full => {
                    let frame = frame?;
                    self.take(frame);
                }
                written = write_some(&mut self.sink, self.queue.front()), if !self.queue.is_empty() => match written {
                    Ok(length) => self.queue.advance(length),
                    // The command closed its input. What it does not want is nobody's loss.
                    Err(_) => {
                        self.sink = None;
                        self.queue.clear();
                    }
                },
                () = tokio::time::sleep(LOOK), if full => if self.wire.is_dropped() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                },
            }
        }
    }

    fn take(&mut self, frame: ExecInput) {
        match frame {
            ExecInput::Stdin(bytes) if self.sink.is_some() && !self.ended => self.queue.push(bytes),
            ExecInput::Stdin(_) => {}
            ExecInput::StdinEof => {
                let end = self.terminal.as_ref().and_then(|terminal| terminal.end_of_input());
                if self.sink.is_some() && !self.ended {
                    self.queue.push(end.into_iter().collect());
                }
                self.ended = true;
            }
            ExecInput::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    // A terminal that just closed has no size.
                    let _ = terminal.resize(size);
                }
            }
            ExecInput::Signal(signal) => self.group.signal(signal.into()),
        }
    }
}

async fn write_some(sink: &mut Option<Sink>, bytes: &[u8]) -> io::Result<usize> {
    match sink {
        Some(sink) => sink.write(bytes).await,
        None => Ok(bytes.len()),
    }
}
