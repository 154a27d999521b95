//! The client's end of a command in a guest: stdin, stdout and stderr, the terminal's size, signals, the exit code.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

use banger_bus::trace::options;
use banger_schemas::codec::MAX_DATA;
use banger_schemas::guest::{Exec, ExecFailure, ExecInput, ExecOutput, TtySize};
use banger_schemas::io::{FrameReader, write_frame};
use banger_schemas::sessions::{ManagerProxy, exec_to_dict};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::{Failure, code};
use crate::view::note;

/// What ends a program that writes to nobody.
const SIGPIPE: u8 = 13;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Exited(u8),
    Signaled(u8),
    NotFound,
    NotExecutable(String),
}

impl End {
    /// As shells and containers put it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            End::Exited(status) => *status,
            End::Signaled(signal) => code::SIGNAL.saturating_add(*signal),
            End::NotFound => code::NOT_FOUND,
            End::NotExecutable(_) => code::NOT_EXECUTABLE,
        }
    }

    /// Says what an exit code alone does not.
    pub(crate) fn explain(&self, exec: &Exec) {
        let program = || String::from_utf8_lossy(exec.argv.first().map_or(b"", Vec::as_slice)).into_owned();
        match self {
            End::NotFound => note(&format!("banger: {}: not found in the machine", program())),
            End::NotExecutable(why) => note(&format!("banger: {}: cannot be executed: {why}", program())),
            End::Exited(_) | End::Signaled(_) => {}
        }
    }
}

/// Starts a command; the stream that serves it.
#[tracing::instrument(name = "starting a command", skip_all)]
pub(crate) async fn start(client: &Client, vm: &str, exec: &Exec) -> Result<UnixStream, Failure> {
    let sessions = ManagerProxy::new(&client.bus).await?;
    let asked = (vm, exec_to_dict(exec), options());
    let stream: zbus::wire::OwnedFd = client.call_once(sessions.inner(), "Exec", &asked).await?;
    let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(stream));
    stream.set_nonblocking(true)?;
    Ok(UnixStream::from_std(stream)?)
}

/// Whether this process has a terminal to give to the guest.
pub(crate) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The size of this terminal.
pub(crate) fn terminal_size() -> TtySize {
    use terminal_size::{Height, Width};
    let (Width(cols), Height(rows)) = terminal_size::terminal_size().unwrap_or((Width(80), Height(24)));
    TtySize { rows, cols }
}

/// Connects this process's standard streams with the command until it ends.
#[tracing::instrument(name = "running the command", skip_all)]
pub(crate) async fn streams(stream: UnixStream, exec: &Exec) -> Result<End, Failure> {
    let _raw = match exec.tty {
        Some(_) => Some(RawTerminal::enter()?),
        None => None,
    };
    let stdin: Box<dyn AsyncRead + Unpin> = Box::new(tokio::io::stdin());
    run(stream, stdin, tokio::io::stdout(), tokio::io::stderr(), exec.tty.is_some()).await
}

/// The same with any streams.
pub(crate) async fn run<I, O, E>(
    stream: UnixStream,
    stdin: I,
    mut stdout: O,
    mut stderr: E,
    tty: bool,
) -> Result<End, Failure>
where
    I: AsyncRead + Unpin,
    O: tokio::io::AsyncWrite + Unpin,
    E: tokio::io::AsyncWrite + Unpin,
{
    let (read, write) = stream.into_split();
    let (inputs, to_send) = mpsc::channel(4);
    let sending = send(write, to_send);
    let feeding = feed(stdin, inputs.clone());
    let signaling = signals(inputs, tty);
    let receiving = async {
        let mut frames = FrameReader::new(read);
        loop {
            let read_on = match frames.next::<ExecOutput>().await? {
                Some(ExecOutput::Started { .. }) => true,
                Some(ExecOutput::Stdout(data)) => write_through(&mut stdout, &data).await?,
                Some(ExecOutput::Stderr(data)) => write_through(&mut stderr, &data).await?,
                Some(ExecOutput::Exited(status)) => return Ok(End::Exited(status)),
                Some(ExecOutput::Signaled(signal)) => return Ok(End::Signaled(signal)),
                Some(ExecOutput::Failed(ExecFailure::NotFound)) => return Ok(End::NotFound),
                Some(ExecOutput::Failed(ExecFailure::NotExecutable(why))) => return Ok(End::NotExecutable(why)),
                Some(ExecOutput::Failed(ExecFailure::Other(why))) => return Err(Failure::new(why)),
                None => {
                    return Err(Failure::new("the connection to the machine was lost before the command ended")
                        .hint("'banger vm show' tells how the machine is"));
                }
            };
            // A reader that has gone ends us as it ends any program in a pipe, and the command with us.
            if !read_on {
                return Ok(End::Signaled(SIGPIPE));
            }
        }
    };
    // The end comes from the guest alone; the other three go on beside it, or end early.
    let beside = async {
        tokio::join!(sending, feeding, signaling);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = receiving => end,
        () = beside => Err(Failure::new("unreachable: the streams beside the output never end the command")),
    }
}

/// Writes output through; whether somebody reads it still.
async fn write_through<W: tokio::io::AsyncWrite + Unpin>(to: &mut W, data: &[u8]) -> Result<bool, Failure> {
    let written = async {
        to.write_all(data).await?;
        to.flush().await
    };
    match written.await {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// Writes what is to go to the guest. A guest that no longer listens tells so by its end.
async fn send(mut write: OwnedWriteHalf, mut inputs: mpsc::Receiver<ExecInput>) {
    while let Some(input) = inputs.recv().await {
        if write_frame(&mut write, &input).await.is_err() {
            break;
        }
    }
    // To the guest a half-closed stream is a client that has gone: the end of input is a frame, not this.
    write.forget();
}

/// Stdin to the guest, to its end.
async fn feed<I: AsyncRead + Unpin>(mut stdin: I, inputs: mpsc::Sender<ExecInput>) {
    let mut buffer = vec![0; MAX_DATA];
    loop {
        let input = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => ExecInput::StdinEof,
            Ok(n) => ExecInput::Stdin(buffer[..n].to_vec()),
        };
        let last = input == ExecInput::StdinEof;
        if inputs.send(input).await.is_err() || last {
            return;
        }
    }
}

/// Signals to the guest's command; on a terminal only its size, since keys arrive as bytes.
async fn signals(inputs: mpsc::Sender<ExecInput>, tty: bool) {
    let listen = |kind| signal(kind).ok();
    let (Some(mut int), Some(mut term), Some(mut hup), Some(mut quit), Some(mut winch)) = (
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
        listen(SignalKind::hangup()),
        listen(SignalKind::quit()),
        listen(SignalKind::window_change()),
    ) else {
        return;
    };
    loop {
        let input = tokio::select! {
            _ = int.recv() => ExecInput::Signal(2),
            _ = quit.recv() => ExecInput::Signal(3),
            _ = term.recv() => ExecInput::Signal(15),
            _ = hup.recv() => ExecInput::Signal(1),
            _ = winch.recv() => match tty {
                true => ExecInput::Resize(terminal_size()),
                false => continue,
            },
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// The terminal hands every key through, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).map_err(|_| {
            Failure::new("standard input is no terminal, so the command cannot have it as one")
                .hint("leave --tty out where input comes from a file or a pipe")
        })?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).map_err(std::io::Error::from)?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before).ok();
    }
}
