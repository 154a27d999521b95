//! What is said on a transport: the hello, then yamux streams, each one operation.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use banger_schemas::codec::MAX_MESSAGE;
use banger_schemas::guest::MAX_STREAMS;
use banger_schemas::guest::hello::{HostHello, Scanner};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::sync::Semaphore;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::guest::Guest;
use crate::wire::Wire;
use crate::{log, serve};

/// Room for a whole frame: under emulation every system call costs ten times its share.
const BUFFER: usize = 128 * 1024;
/// yamux ends the whole connection at its own limit, and counts streams that the host has already let go:
/// so that one stands higher, and [`MAX_STREAMS`] is kept here.
const YAMUX_STREAMS: usize = 2 * MAX_STREAMS;

/// Serves one host until it goes, or until it says hello anew on another connection.
pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(transport: T, guest: &Rc<Guest>) {
    let mut transport = BufStream::with_capacity(BUFFER, BUFFER, transport);
    match greet(&mut transport).await {
        Ok(Some(hello)) => {
            let generation = guest.generation.enter(hello.generation);
            tokio::select! {
                result = streams(transport, guest) => match result {
                    Ok(()) => log::info("the host closed the channel"),
                    Err(error) => log::error(&format!("channel: {error}")),
                },
                () = generation.replaced() => log::info("the host opened a newer channel"),
            }
        }
        Ok(None) => {}
        Err(error) => log::error(&format!("hello: {error}")),
    }
}

/// Answers the host's hello, skipping whatever comes before it; `None` when the host left without one.
async fn greet<T: AsyncRead + AsyncWrite + Unpin>(transport: &mut BufStream<T>) -> io::Result<Option<HostHello>> {
    let mut scanner = Scanner::for_agent();
    loop {
        let bytes = transport.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let found = bytes.iter().enumerate().find_map(|(at, byte)| Some((at, scanner.host_hello(*byte)?)));
        let used = found.map_or(bytes.len(), |(at, _)| at + 1);
        transport.consume(used);
        if let Some((_, hello)) = found {
            let answer = hello.answer();
            transport.write_all(&answer.to_bytes()).await?;
            transport.flush().await?;
            // A host without a version in common leaves, or another one comes.
            if answer.version != 0 {
                return Ok(Some(hello));
            }
        }
    }
}

async fn streams<T: AsyncRead + AsyncWrite + Unpin>(transport: T, guest: &Rc<Guest>) -> io::Result<()> {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(YAMUX_STREAMS);
    // No growth: 256 KiB a stream outrun this transport's round trip a hundredfold.
    config.set_max_connection_receive_window(Some(YAMUX_STREAMS * yamux::DEFAULT_CREDIT as usize));
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
    }
    Ok(())
}
