//! A port for both transports: the one everybody knows, or the next that is free.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use banger_schemas::error::{Error, Kind, Result};
use tokio::net::{TcpListener, UdpSocket};

/// How many ports beyond the first are tried: each is another user's banger.
const MORE: u16 = 100;

/// Two sockets on one address.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) address: SocketAddr,
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

/// Binds the first port from `first` on that is free for UDP and for TCP.
pub(crate) async fn bind(first: u16) -> Result<Sockets> {
    for port in first..=first.saturating_add(MORE) {
        match both(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            Ok(sockets) => return Ok(sockets),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => {
                return Err(Error::new(Kind::Unavailable, format!("cannot listen on 127.0.0.1 port {port}: {error}")));
            }
        }
    }
    let last = first.saturating_add(MORE);
    Err(Error::new(Kind::InUse, format!("all ports of 127.0.0.1 from {first} to {last} are taken: free one")))
}

async fn both(address: SocketAddr) -> io::Result<Sockets> {
    let udp = UdpSocket::bind(address).await?;
    let tcp = TcpListener::bind(address).await?;
    Ok(Sockets { address, udp, tcp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_free_only_when_both_transports_have_it() {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let taken = udp.local_addr().unwrap().port();
        let sockets = bind(taken).await.unwrap();
        assert!((taken + 1..=taken + MORE).contains(&sockets.address.port()));
        assert_eq!(sockets.tcp.local_addr().unwrap(), sockets.udp.local_addr().unwrap());

        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let taken = tcp.local_addr().unwrap().port();
        assert_ne!(bind(taken).await.unwrap().address.port(), taken);
    }

    #[tokio::test]
    async fn when_all_are_taken_the_error_says_which() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::MAX)).await;
        let error = bind(u16::MAX).await.unwrap_err();
        assert_eq!(error.kind, Kind::InUse);
        assert!(error.message.contains("65535"), "{error}");
        drop(tcp);
    }
}
