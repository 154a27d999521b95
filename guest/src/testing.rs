//! The host's side of a channel, for tests.

use banger_schemas::guest::{Exec, ExecInput, ExecOutput, Request, Stdin, Wait};
use banger_schemas::io::{FrameReader, write_frame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::exec::{self, Running};
use crate::init::Progress;
use crate::wire::Wire;

/// Runs a test on the kind of runtime that the agent has.
pub(crate) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(test);
}

/// A yamux client.
pub(crate) struct Host(mpsc::Sender<oneshot::Sender<yamux::Stream>>);

impl Host {
    pub(crate) fn new(transport: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Host {
        let (sender, mut wanted) = mpsc::channel::<oneshot::Sender<yamux::Stream>>(1);
        tokio::task::spawn_local(async move {
            let mut client = yamux::Connection::new(transport.compat(), yamux::Config::default(), yamux::Mode::Client);
            loop {
                tokio::select! {
                    wish = wanted.recv() => {
                        let Some(wish) = wish else { break };
                        let stream = std::future::poll_fn(|cx| client.poll_new_outbound(cx)).await.unwrap();
                        let _ = wish.send(stream);
                    }
                    inbound = std::future::poll_fn(|cx| client.poll_next_inbound(cx)) => {
                        if inbound.is_none() { break }
                    }
                }
            }
        });
        Host(sender)
    }

    pub(crate) async fn open(&self) -> Session {
        let (sender, stream) = oneshot::channel();
        self.0.send(sender).await.unwrap();
        let wire = Wire::new(stream.await.unwrap());
        Session { reader: FrameReader::new(wire.clone()), wire }
    }
}

/// One stream of the host.
pub(crate) struct Session {
    pub(crate) reader: FrameReader<Wire>,
    pub(crate) wire: Wire,
}

/// All that a command said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) end: Option<ExecOutput>,
}

impl Session {
    pub(crate) async fn request(&mut self, request: Request) {
        write_frame(&mut self.wire, &request).await.unwrap();
    }

    pub(crate) async fn send(&mut self, input: ExecInput) {
        write_frame(&mut self.wire, &input).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<ExecOutput> {
        self.reader.next().await.unwrap()
    }

    /// Reads to the end, which must be one end frame and then the end of the stream.
    pub(crate) async fn finish(mut self) -> Transcript {
        let mut transcript = Transcript::default();
        while let Some(frame) = self.next().await {
            assert_eq!(transcript.end, None, "nothing follows the end");
            match frame {
                ExecOutput::Started { .. } => {}
                ExecOutput::Stdout(bytes) => transcript.stdout.extend(bytes),
                ExecOutput::Stderr(bytes) => transcript.stderr.extend(bytes),
                end => transcript.end = Some(end),
            }
        }
        transcript
    }
}

/// A host and an agent that serves nothing but commands.
pub(crate) fn commands() -> Host {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::task::spawn_local(serve_commands(theirs));
    Host::new(ours)
}

async fn serve_commands(transport: DuplexStream) {
    let mut server = yamux::Connection::new(transport.compat(), yamux::Config::default(), yamux::Mode::Server);
    while let Some(Ok(stream)) = std::future::poll_fn(|cx| server.poll_next_inbound(cx)).await {
        let wire = Wire::new(stream);
        tokio::task::spawn_local(async move {
            let mut frames = FrameReader::new(wire.clone());
            let Request::Exec(request) = frames.expect().await.unwrap() else { return };
            let _ = exec::serve(*request, frames, wire, &Progress::default(), &Running::default()).await;
        });
    }
}

/// A command without a terminal, in `/`, with nothing on its input.
pub(crate) fn command(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: vec![],
        cwd: Some(b"/".to_vec()),
        tty: None,
        stdin: Stdin::Null,
        wait: Wait::System,
    }
}

/// Starts a command on a stream of its own.
pub(crate) async fn start(host: &Host, exec: Exec) -> Session {
    let mut session = host.open().await;
    session.request(Request::Exec(Box::new(exec))).await;
    session
}

/// Drops the stream as a host does that has gone.
pub(crate) async fn leave(mut session: Session) {
    session.wire.flush().await.unwrap();
    drop(session);
}
