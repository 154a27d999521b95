//! What is said on a transport: the hello, then yamux streams, each one operation.

mod watched;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use banger_schemas::codec::MAX_MESSAGE;
use banger_schemas::guest::hello::{HostHello, Scanner};
use banger_schemas::guest::{MAX_STREAMS, RECEIVE_WINDOW, YAMUX_STREAMS};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::sync::Semaphore;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::guest::Guest;
use crate::wire::Wire;
use crate::{log, serve};
use watched::Watched;

/// What a port gives at once: more than that is read where it belongs, and not copied from here.
const READ_BUFFER: usize = 4096;
/// Room for a whole frame: under emulation every system call costs ten times its share.
const WRITE_BUFFER: usize = 128 * 1024;

/// Serves the hosts that say hello on this transport, until the last one goes or a connection of another generation
/// begins elsewhere.
pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(transport: T, guest: &Rc<Guest>) {
    let mut transport = BufStream::with_capacity(READ_BUFFER, WRITE_BUFFER, transport);
    let mut begun = Vec::new();
    loop {
        let hello = match greet(&mut transport, &begun).await {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(error) => return log::error(&format!("hello: {error}")),
        };
        let generation = guest.generation.enter(hello.generation);
        let mut watched = Watched::new(&mut transport);
        let result = tokio::select! {
            result = streams(&mut watched, guest) => result,
            () = generation.replaced() => return log::info("the host opened a newer channel"),
        };
        begun.clear();
        match result {
            Ok(()) => log::info("the host closed the channel"),
            Err(error) => {
                log::info(&format!("the channel broke off: {error}"));
                // What broke it may be the hello of the next host, and then nobody says it a second time.
                begun.extend(watched.tail());
            }
        }
    }
}

/// Answers the host's hello, skipping whatever comes before it; `None` when the host left without one.
/// The first bytes may have been read already.
async fn greet<T: AsyncRead + AsyncWrite + Unpin>(
    transport: &mut BufStream<T>,
    begun: &[u8],
) -> io::Result<Option<HostHello>> {
    let mut scanner = Scanner::for_agent();
    let mut found = begun.iter().find_map(|byte| scanner.host_hello(*byte));
    loop {
        if let Some(hello) = found {
            let answer = hello.answer();
            transport.write_all(&answer.to_bytes()).await?;
            transport.flush().await?;
            // A host without a version in common leaves, or another one comes.
            if answer.version != 0 {
                return Ok(Some(hello));
            }
        }
        let bytes = transport.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let at = bytes.iter().position(|byte| {
            found = scanner.host_hello(*byte);
            found.is_some()
        });
        let used = at.map_or(bytes.len(), |at| at + 1);
        transport.consume(used);
    }
}

async fn streams<T: AsyncRead + AsyncWrite + Unpin>(transport: T, guest: &Rc<Guest>) -> io::Result<()> {
    let mut config = yamux::Config::default();
    // At this limit it ends the whole connection: [`MAX_STREAMS`] is kept below.
    config.set_max_num_streams(YAMUX_STREAMS);
    config.set_max_connection_receive_window(Some(RECEIVE_WINDOW));
    config.set_split_send_size(MAX_MESSAGE);
    let mut connection = yamux::Connection::new(transport.compat(), config, yamux::Mode::Server);
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    while let Some(stream) = std::future::poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        let wire = Wire::new(stream.map_err(io::Error::other)?);
        // A stream beyond the limit is dropped, which the host sees as a reset.
        if let Ok(place) = places.clone().try_acquire_owned() {
            let guest = guest.clone();
            // Not tied to the connection: an operation whose stream is gone has to clean up after itself.
            tokio::task::spawn_local(async move {
                serve::stream(wire, &guest).await;
                drop(place);
            });
        }
        // A burst of streams must not count as open those that are served in no time.
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Door;
    use crate::root::RootError;
    use crate::testing::{Host, command, local};
    use banger_schemas::guest::hello::AgentHello;
    use banger_schemas::guest::{ExecFailure, ExecOutput, Reply, Request};
    use tokio::io::{AsyncReadExt, DuplexStream};

    /// An agent that has no disks, served on a transport of its own.
    fn agent() -> (Rc<Guest>, DuplexStream) {
        let (door, _pid1) = std::os::unix::net::UnixStream::pair().unwrap();
        let (tell, assembling) = tokio::sync::oneshot::channel();
        tell.send(Err(RootError::NoDevice("/dev/vda"))).unwrap();
        let (_, loaded) = tokio::sync::watch::channel(true);
        let guest = Rc::new(Guest::new(assembling, loaded, Door::new(door).unwrap()));
        (guest.clone(), connect(&guest))
    }

    fn connect(guest: &Rc<Guest>) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let guest = guest.clone();
        tokio::task::spawn_local(async move { serve(theirs, &guest).await });
        ours
    }

    async fn say_hello(host: &mut DuplexStream, hello: HostHello) -> AgentHello {
        host.write_all(&hello.to_bytes()).await.unwrap();
        let mut scanner = Scanner::for_host();
        loop {
            let byte = host.read_u8().await.unwrap();
            if let Some(answer) = scanner.agent_hello(byte, hello.nonce) {
                return answer;
            }
        }
    }

    async fn ask(host: &Host, request: Request) -> Reply {
        let mut session = host.open().await;
        session.request(request).await;
        session.reader.expect().await.unwrap()
    }

    #[test]
    fn a_hello_is_found_behind_garbage_and_an_unknown_version_is_told_so() {
        local(async {
            let (_guest, mut host) = agent();
            host.write_all(b"rest of an older life \x00bang").await.unwrap();
            let future = HostHello { nonce: 1, oldest: 7, newest: 9, generation: 1 };
            assert_eq!(say_hello(&mut host, future).await.version, 0);
            assert_eq!(say_hello(&mut host, HostHello::new(2, 1)).await.version, 1);
        });
    }

    #[test]
    fn without_an_identity_everything_is_refused() {
        local(async {
            let (_guest, mut transport) = agent();
            say_hello(&mut transport, HostHello::new(1, 1)).await;
            let host = Host::new(transport);
            let shutdown = Request::Shutdown { grace_ms: 1 };
            assert!(matches!(ask(&host, shutdown).await, Reply::Refused(_)));
            assert!(matches!(ask(&host, Request::Status).await, Reply::Refused(_)));
            let Reply::Refused(reason) = ask(&host, Request::Prepare).await else { panic!("ready without disks") };
            assert_eq!(reason, "the guest cannot mount its disks: /dev/vda did not appear");
            let mut session = host.open().await;
            session.request(Request::Exec(Box::new(command(&["true"])))).await;
            let failure = ExecFailure::Other("the guest has no identity yet".into());
            assert_eq!(session.next().await, Some(ExecOutput::Failed(failure)));
        });
    }

    #[test]
    fn garbage_on_a_stream_costs_that_stream_only() {
        local(async {
            let (_guest, mut transport) = agent();
            say_hello(&mut transport, HostHello::new(1, 1)).await;
            let host = Host::new(transport);
            let mut session = host.open().await;
            session.wire.write_all(&[0xff; 4096]).await.unwrap();
            assert!(session.reader.next::<Reply>().await.unwrap().is_none());
            assert!(matches!(ask(&host, Request::Status).await, Reply::Refused(_)));
        });
    }

    #[test]
    fn the_hello_of_a_host_that_took_over_is_found_between_frames_and_inside_one() {
        // yamux: a data frame of stream 1 that promises a kilobyte and brings ten bytes of it.
        let inside = b"\0\0\0\x01\0\0\0\x01\0\0\x04\0half a fra";
        for unfinished in [b"".as_slice(), inside] {
            local(async {
                let (_guest, mut host) = agent();
                say_hello(&mut host, HostHello::new(1, 1)).await;
                host.write_all(unfinished).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                assert_eq!(say_hello(&mut host, HostHello::new(2, 2)).await.version, 1);
                assert!(matches!(ask(&Host::new(host), Request::Status).await, Reply::Refused(_)));
            });
        }
    }

    #[test]
    fn a_connection_of_another_generation_ends_the_older_ones() {
        local(async {
            let (guest, mut first) = agent();
            say_hello(&mut first, HostHello::new(1, 1)).await;
            let mut beside = connect(&guest);
            say_hello(&mut beside, HostHello::new(2, 1)).await;
            let mut second = connect(&guest);
            say_hello(&mut second, HostHello::new(3, 2)).await;
            for mut older in [first, beside] {
                // Whatever the multiplexer said on its own account, and then the end.
                older.read_to_end(&mut Vec::new()).await.unwrap();
            }
            assert!(matches!(ask(&Host::new(second), Request::Status).await, Reply::Refused(_)));
        });
    }
}
