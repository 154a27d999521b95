//! Packets with descriptors: `SOCK_SEQPACKET` over unix sockets, one packet a message, `SCM_RIGHTS` beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, getsockopt, listen, recvmsg, sendmsg, socket, socketpair, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::codec::{self, MAX_MESSAGE};

/// Descriptors that one packet may carry.
pub const MAX_FDS: usize = 16;

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Packet<T> {
    pub message: T,
    pub fds: Vec<OwnedFd>,
}

/// One end of a packet connection.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
}

/// A listening packet socket.
#[derive(Debug)]
pub struct PacketListener {
    fd: AsyncFd<OwnedFd>,
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// A socket that listens at `path`, for a child process to serve.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(16)?)?;
    Ok(fd)
}

/// Returns when `fd` is readable: for a pidfd, when its process has ended (`pidfd_open(2)`).
pub async fn readable(fd: OwnedFd) -> io::Result<()> {
    registered(fd)?.readable().await.map(drop)
}

impl PacketListener {
    /// Listens at `path`. Only the owner may connect: the folder's mode says so, and the umask of the caller.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Ok(PacketListener { fd: registered(listen_at(path)?)? })
    }

    /// Takes over a listening descriptor, such as one that the service manager passed on.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if getsockopt(&fd, sockopt::SockType)? != SockType::SeqPacket || !getsockopt(&fd, sockopt::AcceptConn)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening packet socket"));
        }
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(PacketListener { fd: registered(fd)? })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<PacketSocket> {
        self.fd
            .async_io(Interest::READABLE, |fd| {
                let raw = accept4(fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
                Ok(owned(raw))
            })
            .await
            .and_then(PacketSocket::from_fd)
    }
}

impl PacketSocket {
    /// Connects to a listener at `path`. Unix sockets connect at once or not at all.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        PacketSocket::from_fd(fd)
    }

    /// Takes over a connected descriptor.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(PacketSocket { fd: registered(fd)? })
    }

    /// Two connected ends; the second is a plain descriptor that a child process may inherit.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        Ok((PacketSocket::from_fd(a)?, b))
    }

    /// The peer as the kernel knows it: pid, uid.
    pub fn peer(&self) -> io::Result<(i32, u32)> {
        let credentials = getsockopt(self.fd.get_ref(), sockopt::PeerCredentials)?;
        Ok((credentials.pid(), credentials.uid()))
    }

    /// Sends one message with its descriptors.
    pub async fn send<T: bincode::Encode>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = codec::encode(message)?;
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        self.fd
            .async_io(Interest::WRITABLE, |fd| {
                let iov = [IoSlice::new(&bytes)];
                sendmsg::<()>(fd.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)?;
                Ok(())
            })
            .await
    }

    /// Receives one message; `None` when the peer is gone. A packet that is too long or carries too many
    /// descriptors is an error, and its descriptors are closed.
    pub async fn receive<T: bincode::Decode<()>>(&self) -> io::Result<Option<Packet<T>>> {
        let mut bytes = vec![0; MAX_MESSAGE + 1];
        let (length, fds) = self.fd.async_io(Interest::READABLE, |fd| receive_raw(fd, &mut bytes)).await?;
        if length == 0 {
            return Ok(None);
        }
        let message = codec::decode(&bytes[..length])?;
        Ok(Some(Packet { message, fds }))
    }

    /// Receives one message from a peer that must not be gone yet.
    pub async fn expect<T: bincode::Decode<()>>(&self) -> io::Result<Packet<T>> {
        self.receive().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn receive_raw(fd: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(fd.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            fds.extend(raw.into_iter().map(owned));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an oversized packet"));
    }
    Ok((received.bytes, fds))
}

/// A descriptor whose readiness can be waited for.
#[allow(unsafe_code, reason = "tokio cannot know that an OwnedFd stays open as long as its registration")]
pub fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the AsyncFd owns the descriptor, never gives it away mutably, and an OwnedFd is open until dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

#[allow(unsafe_code, reason = "the kernel has just made this descriptor for us; nobody else holds its number")]
fn owned(raw: RawFd) -> OwnedFd {
    // SAFETY: called only with a number that accept4 or SCM_RIGHTS has just returned, once each.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[tokio::test]
    async fn a_descriptor_arrives_with_its_message() {
        let (here, there) = PacketSocket::pair().unwrap();
        let there = PacketSocket::from_fd(there).unwrap();
        let mut file =
            std::fs::File::from(nix::sys::memfd::memfd_create(c"t", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all(b"inside").unwrap();
        here.send(&"look".to_owned(), &[file.as_fd()]).await.unwrap();
        let packet = there.expect::<String>().await.unwrap();
        assert_eq!(packet.message, "look");
        let mut copy = std::fs::File::from(packet.fds.into_iter().next().unwrap());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        drop(here);
        assert!(there.receive::<String>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_the_connection_goes_on() {
        let (here, there) = PacketSocket::pair().unwrap();
        let there = PacketSocket::from_fd(there).unwrap();
        nix::unistd::write(here.fd.get_ref(), &[0xff; 50]).unwrap();
        assert!(there.receive::<crate::keeper::Request>().await.is_err());
        here.send(&crate::keeper::Request::Watch, &[]).await.unwrap();
        assert_eq!(there.expect::<crate::keeper::Request>().await.unwrap().message, crate::keeper::Request::Watch);
    }
}
