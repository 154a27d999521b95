//! The sockets: UDP by hickory's server, TCP in bounds of our own, both to one handler.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use hickory_server::Server;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream as Messages;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::MessageType;
use hickory_server::server::{Request, RequestHandler, ResponseHandle, TimeoutStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::handler::Handler;
use crate::port::Sockets;

/// TCP connections at once; hickory's own listener has no such bound. More wait in the backlog.
const CONNECTIONS: usize = 64;
/// A connection ends when no whole question came for this long, and in any case after `LIFE`.
const IDLE: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(60);
/// Answers that may wait on one connection.
const ANSWERS: usize = 8;
/// Rest after a failed accept: out of descriptors is not cured by trying at once.
const REST: Duration = Duration::from_millis(200);

/// Serves both sockets as long as `tasks` lives.
pub(crate) fn spawn(tasks: &mut JoinSet<()>, sockets: Sockets, handler: Handler) {
    let mut server = Server::new(handler.clone());
    server.register_socket(sockets.udp);
    tasks.spawn(async move {
        let ended = server.block_until_done().await;
        tracing::error!(?ended, "no longer listening on UDP");
    });
    tasks.spawn(accept(sockets.tcp, handler));
}

async fn accept(listener: TcpListener, handler: Handler) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let conversation = converse(stream, peer, handler.clone());
                connections.spawn(async move { drop(tokio::time::timeout(LIFE, conversation).await) });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Answers one connection's questions in turn; what is no question ends it.
async fn converse(stream: TcpStream, peer: SocketAddr, handler: Handler) {
    let (messages, answers) = Messages::from_stream_with_buffer_size(AsyncIoTokioAsStd(stream), peer, ANSWERS);
    let mut messages = TimeoutStream::new(messages, IDLE);
    while let Some(Ok(message)) = messages.next().await {
        let (bytes, peer) = message.into_parts();
        let Ok(request) = Request::from_bytes(bytes, peer, Protocol::Tcp) else { return };
        if request.metadata.message_type == MessageType::Response {
            return;
        }
        let handle = ResponseHandle::new(peer, answers.clone(), Protocol::Tcp);
        handler.handle_request::<_, TokioTime>(&request, handle).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::bind;
    use tokio::sync::watch;

    #[tokio::test]
    async fn who_ends_lets_the_port_go() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let sockets = bind(free).await.unwrap();
        let port = sockets.address.port();
        let (_zones, zones) = watch::channel(std::sync::Arc::default());
        let mut tasks = JoinSet::new();
        spawn(&mut tasks, sockets, Handler::new(zones).unwrap());
        let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_ne!(bind(port).await.unwrap().address.port(), port);
        tasks.shutdown().await;
        tokio::task::yield_now().await;
        assert_eq!(bind(port).await.unwrap().address.port(), port);
    }
}
