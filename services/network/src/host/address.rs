//! What the host's own addresses are, and whether a loopback address and port can be listened at.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use nix::ifaddrs::getifaddrs;

use super::Error;
use crate::render::Protocol;

/// Every IPv4 address of this host but loopback: the ones that a guest must not reach.
pub fn of_this_host() -> io::Result<Vec<Ipv4Addr>> {
    let mut found: Vec<Ipv4Addr> = getifaddrs()?
        .filter_map(|interface| interface.address)
        .filter_map(|address| address.as_sockaddr_in().map(|v4| v4.ip()))
        .filter(|address| !address.is_loopback())
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Whether this host lets us listen at a loopback address at all (some containers have 127.0.0.1 only).
pub fn usable(address: Ipv4Addr) -> bool {
    TcpListener::bind(SocketAddrV4::new(address, 0)).is_ok()
}

/// Tries a port, so that a failure has a name: slirp4netns tells only that it failed.
pub fn try_port(protocol: Protocol, at: SocketAddrV4) -> Result<(), Error> {
    let tried = match protocol {
        Protocol::Tcp => TcpListener::bind(at).map(drop),
        Protocol::Udp => UdpSocket::bind(at).map(drop),
    };
    tried.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => Error::PortTaken(at),
        ErrorKind::PermissionDenied => Error::PortPrivileged(at),
        _ => Error::Io { what: format!("cannot listen at {at}"), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let held = TcpListener::bind("127.77.0.9:0").unwrap();
        let at = SocketAddrV4::new(Ipv4Addr::new(127, 77, 0, 9), held.local_addr().unwrap().port());
        assert!(matches!(try_port(Protocol::Tcp, at), Err(Error::PortTaken(taken)) if taken == at));
        drop(held);
        assert!(try_port(Protocol::Tcp, at).is_ok());
    }

    #[test]
    fn loopback_is_not_among_the_hosts_addresses() {
        assert!(of_this_host().unwrap().iter().all(|address| !address.is_loopback()));
    }
}
