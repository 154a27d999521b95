//! What the kernel tells whoever listens: links and packet rules that come, change and go. Knows no names of banger's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use banger_schemas::io::packet::registered;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use tokio::io::unix::AsyncFd;

/// rtnetlink(7): RTMGRP_LINK; and RTNLGRP_IPV4_NETCONF, group 24: what is forwarded.
const LINKS: u32 = 1;
const NETCONF: u32 = 1 << 23;
/// linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES is group 7, the bit before it.
const RULES: u32 = 1 << 6;
/// nlmsghdr and nlattr, netlink(7).
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// More than one datagram of the kernel's (NLMSG_GOODSIZE and its batches).
const DATAGRAM: usize = 64 * 1024;
/// A flush of some thousand rules is told rule by rule.
const BUFFER: usize = 4 << 20;

/// A subscription. What comes while nobody reads is kept, and told as lost when it was too much.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
}

/// What one wake-up brought.
#[derive(Debug)]
pub struct News {
    pub messages: Vec<Message>,
    /// Some were dropped: whatever is known may be wrong.
    pub lost: bool,
}

/// One message, its header taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Listener {
    /// Links of the present network namespace, and whether it forwards packets.
    pub fn links() -> io::Result<Self> {
        Listener::open(SockProtocol::NetlinkRoute, LINKS | NETCONF)
    }

    /// Packet rules (nf_tables) of the present network namespace. Needs CAP_NET_ADMIN.
    pub fn rules() -> io::Result<Self> {
        Listener::open(SockProtocol::NetlinkNetFilter, RULES)
    }

    fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        // As much as an administrator allows; less is told as lost.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Listener { socket: registered(socket)? })
    }

    /// Comes back when something may have come, which is to be taken then.
    pub async fn stirred(&self) -> io::Result<()> {
        // Before it is read: what comes in between wakes the next one.
        self.socket.readable().await.map(|mut ready| ready.clear_ready())
    }

    /// What is there now, without waiting.
    pub fn take(&self) -> News {
        let mut news = News { messages: Vec::new(), lost: false };
        let mut buffer = vec![0; DATAGRAM];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => news.messages.extend(messages(buffer.get(..length).unwrap_or_default())),
                Err(Errno::EAGAIN) => return news,
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => news.lost = true,
                Err(_) => {
                    news.lost = true;
                    return news;
                }
            }
        }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The messages of a datagram. What is cut off ends it.
fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (number(bytes, 0), number(bytes, 4)) {
        let (length, kind) = (u32::from_ne_bytes(length) as usize, u16::from_ne_bytes(kind));
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push(Message { kind, body: body.to_vec() });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The text that an attribute of this number holds, where attributes begin `skip` bytes into the body.
pub fn text(body: &[u8], skip: usize, wanted: u16) -> Option<&str> {
    let value = value(body, skip, wanted)?;
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// The number that it holds.
pub fn integer(body: &[u8], skip: usize, wanted: u16) -> Option<i32> {
    value(body, skip, wanted)?.try_into().ok().map(i32::from_ne_bytes)
}

fn value(body: &[u8], skip: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(skip..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(number(rest, 0)?));
        let kind = u16::from_ne_bytes(number(rest, 2)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(ATTRIBUTE + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_datagram_comes_apart_into_messages_and_texts() {
        let body = [vec![9; 4], attribute(1, b"banger\0"), attribute(3, b"br0\0")].concat();
        let read = messages(&[message(7, &body), message(8, &[])].concat());
        assert_eq!(read.iter().map(|m| m.kind).collect::<Vec<_>>(), [7, 8]);
        assert_eq!((text(&read[0].body, 4, 1), text(&read[0].body, 4, 3)), (Some("banger"), Some("br0")));
        assert_eq!((text(&read[0].body, 4, 2), text(&read[1].body, 4, 1)), (None, None));
    }

    #[test]
    fn what_is_cut_off_or_has_no_length_ends_the_reading() {
        let whole = message(7, &attribute(1, b"banger\0"));
        for length in 0..whole.len() {
            assert!(messages(&whole[..length]).is_empty());
        }
        // The last byte only fills up.
        for length in HEADER..whole.len() - 1 {
            assert_eq!(text(&whole[HEADER..length], 0, 1), None);
        }
        assert!(messages(&[0; 64]).is_empty() && text(&[0; 64], 0, 1).is_none());
    }
}
