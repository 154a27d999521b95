//! The guest channel: a hello that is found again in anything, then one yamux connection, the host its client.
//!
//! Everything read here is the guest's, so hostile. It can cost the VM its channel, and with that its life, but no
//! more memory or time than is set aside here; whether a silent guest is worth waiting for is the supervisor's call.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use banger_schemas::guest::hello::{AgentHello, HostHello, Scanner};
use banger_schemas::guest::{MAX_STREAMS, RECEIVE_WINDOW, YAMUX_STREAMS};
use futures_util::future::poll_fn;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;
use tokio_util::task::TaskTracker;
use yamux::ConnectionError;

use crate::backend::{Agent, Unreachable};
use crate::pump::pump;

/// A frame's payload: what the agent reads at a time.
const FRAME: usize = 64 * 1024;
/// Before an agent has said hello, more than this is a guest that plays; it is read slowly from there on.
const PATIENT_WITH: usize = 1024 * 1024;
const SLOWLY: Duration = Duration::from_millis(50);
/// How long opening a stream may take in this process.
const OPENING: Duration = Duration::from_secs(5);

type Opened = Result<yamux::Stream, String>;

/// How a channel ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The VMM closed it: it is ending.
    Closed,
    /// The guest has stopped, and its VMM goes on.
    Halted,
    /// What came is no protocol of ours; a sentence.
    Nonsense(String),
}

/// The door to a guest's agent.
#[derive(Debug)]
pub(crate) struct Channel {
    requests: mpsc::Sender<oneshot::Sender<Opened>>,
    inbox: RefCell<Option<mpsc::Receiver<oneshot::Sender<Opened>>>>,
    answered: Cell<bool>,
    streams: Rc<()>,
}

impl Channel {
    pub(crate) fn new() -> Self {
        let (requests, inbox) = mpsc::channel(32);
        Channel { requests, inbox: RefCell::new(Some(inbox)), answered: Cell::new(false), streams: Rc::new(()) }
    }

    /// Opens a stream to the agent. The client's end of it, which `tasks` keep going.
    pub(crate) async fn open(&self, tasks: &TaskTracker) -> Result<OwnedFd, String> {
        if !self.answered.get() {
            return Err("the guest has not answered yet".into());
        }
        let slot = self.streams.clone();
        if Rc::strong_count(&slot) > MAX_STREAMS + 1 {
            return Err(format!("{MAX_STREAMS} streams to the guest are open already: close some"));
        }
        let (reply, opened) = oneshot::channel();
        let stream = async {
            self.requests.send(reply).await.ok()?;
            opened.await.ok()
        };
        let stream = tokio::time::timeout(OPENING, stream).await.ok().flatten();
        let stream = stream.ok_or("the channel to the guest is gone")??;
        let (ours, theirs) = sockets().map_err(|error| format!("no socket for the stream: {error}"))?;
        tasks.spawn_local(async move {
            // A client or a guest that went away is nothing to report: whoever is left sees its stream end.
            let _ = pump(ours, stream).await;
            drop(slot);
        });
        Ok(theirs)
    }

    /// Keeps the channel going until it ends. `answered` is called whenever the agent came or went.
    pub(crate) async fn run(&self, agent: Agent, answered: impl Fn(bool)) -> End {
        let Some(mut inbox) = self.inbox.borrow_mut().take() else { return End::Closed };
        let set = |now: bool| {
            self.answered.set(now);
            answered(now);
        };
        let end = connections(agent, &mut inbox, &set).await;
        self.answered.set(false);
        end
    }
}

/// One connection after the other: an agent that closes its side in order is greeted anew.
async fn connections(
    mut agent: Agent,
    inbox: &mut mpsc::Receiver<oneshot::Sender<Opened>>,
    answered: &impl Fn(bool),
) -> End {
    for generation in 1.. {
        let stream = match agent.connect().await {
            Ok(stream) => stream,
            Err(Unreachable::Closed) => break,
            Err(Unreachable::Halted) => return End::Halted,
        };
        // What it has read ahead is the old agent's, and worth nothing to the next.
        let mut stream = BufStream::with_capacity(FRAME, 2 * FRAME, stream);
        let broke_off = match greet(&mut stream, generation).await {
            Err(_) => true,
            Ok(AgentHello { version: 0, newest, .. }) => {
                return End::Nonsense(format!(
                    "the agent in the guest speaks version {newest} of the protocol at most, which this keeper does not"
                ));
            }
            Ok(_) => {
                answered(true);
                match multiplex(stream, inbox).await {
                    Ok(()) => false,
                    Err(ConnectionError::Io(_) | ConnectionError::Decode(yamux::FrameDecodeError::Io(_))) => true,
                    Err(error) => return End::Nonsense(format!("the agent broke the protocol: {error}")),
                }
            }
        };
        if broke_off && agent.ends_with_its_stream() {
            break;
        }
        tokio::time::sleep(SLOWLY).await;
        if agent.is_closed() {
            break;
        }
        answered(false);
    }
    End::Closed
}

/// Says hello and looks for the answer to it.
async fn greet(stream: &mut BufStream<UnixStream>, generation: u32) -> io::Result<AgentHello> {
    // Not a secret: it only tells the answer to this hello from answers to older ones.
    let nonce = RandomState::new().hash_one(generation);
    stream.write_all(&HostHello::new(nonce, generation).to_bytes()).await?;
    stream.flush().await?;
    let mut scanner = Scanner::for_host();
    let mut seen = 0usize;
    loop {
        let bytes = stream.fill_buf().await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let found = bytes.iter().enumerate().find_map(|(at, byte)| Some((at, scanner.agent_hello(*byte, nonce)?)));
        let length = bytes.len();
        if let Some((at, hello)) = found {
            stream.consume(at + 1);
            return Ok(hello);
        }
        stream.consume(length);
        seen = seen.saturating_add(length);
        if seen > PATIENT_WITH {
            tokio::time::sleep(SLOWLY).await;
        }
    }
}

/// Runs one yamux connection and opens streams in it as asked. Done when the agent has closed it in order.
async fn multiplex(
    stream: BufStream<UnixStream>,
    inbox: &mut mpsc::Receiver<oneshot::Sender<Opened>>,
) -> Result<(), ConnectionError> {
    let mut connection = yamux::Connection::new(stream.compat(), configuration(), yamux::Mode::Client);
    poll_fn(|context| {
        while let Poll::Ready(Some(reply)) = inbox.poll_recv(context) {
            let opened = match connection.poll_new_outbound(context) {
                Poll::Ready(opened) => opened.map_err(|error| format!("no stream to the guest: {error}")),
                Poll::Pending => Err("the guest has yet to accept the streams that are open".into()),
            };
            // Whoever asked may have stopped waiting.
            let _ = reply.send(opened);
        }
        loop {
            match connection.poll_next_inbound(context) {
                // The host opens streams. One that the guest opens is reset by dropping it.
                Poll::Ready(Some(Ok(uninvited))) => drop(uninvited),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn configuration() -> yamux::Config {
    let mut configuration = yamux::Config::default();
    configuration.set_max_num_streams(YAMUX_STREAMS);
    configuration.set_max_connection_receive_window(Some(RECEIVE_WINDOW));
    configuration.set_split_send_size(FRAME);
    configuration
}

/// Our end and the client's of a fresh stream socket.
pub(crate) fn sockets() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
