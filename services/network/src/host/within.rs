//! Changes inside a network namespace, as one request to a short-lived process that enters it: a service has more
//! than one thread, and only a single-threaded process may enter a user namespace.
//!
//! The process gets its end of a packet socket as standard input, enters, reads one request, answers it with the
//! descriptors of the TAPs in order, and ends.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use banger_schemas::io::packet::PacketSocket;
use bincode::{Decode, Encode};
use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::links::{self, Links};
use super::{Error, Refusal, nft, tap};
use banger_bus::process::Process;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// Loopback up, packets forwarded, the bridge with its address.
    Base {
        bridge: String,
        address: [u8; 4],
        prefix: u8,
    },
    /// A persistent TAP as an isolated port of the bridge. Its descriptor comes with the answer.
    AddTap {
        name: String,
        bridge: String,
    },
    RemoveLink {
        name: String,
    },
    /// Names of a bridge's ports.
    Ports {
        bridge: String,
    },
    /// Rules in place of all former ones.
    Rules {
        text: String,
    },
    /// The same, if our tables are not there.
    RulesIfNone {
        text: String,
    },
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    Done,
    /// One descriptor comes along.
    Tap,
    /// Whether it was there.
    Removed(bool),
    Ports(Vec<String>),
}

/// The answer to all: outcomes in order, or the first failure; what was done before it stays done.
pub type Reply = Result<Vec<Outcome>, Failure>;

/// An [`Error`] on its way out of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Failure {
    /// The process is gone, or has no namespace of its own.
    NoNamespace,
    Refused(Refusal),
    Nft(String),
    Other {
        op: String,
        message: String,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Failure::Refused(refusal),
            Error::Nft(message) => Failure::Nft(message),
            Error::Op { op, message } => Failure::Other { op, message },
            Error::NoNamespace => Failure::NoNamespace,
            other => Failure::Other { op: "a change in the namespace".to_owned(), message: other.to_string() },
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoNamespace => Error::NoNamespace,
            Failure::Refused(refusal) => Error::Refused(refusal),
            Failure::Nft(message) => Error::Nft(message),
            Failure::Other { op, message } => Error::Op { op, message },
        }
    }
}

/// The process's whole life, before any second thread exists: enters `holder`'s namespaces and serves one request.
pub fn serve(holder: &Process, socket: OwnedFd) -> io::Result<()> {
    let entered = enter(holder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = PacketSocket::from_fd(socket)?;
        let request = socket.expect::<Vec<Op>>().await?;
        let mut taps = Vec::new();
        let reply: Reply = match entered {
            Ok(()) => run_all(&request.message, &mut taps).await.map_err(Failure::from),
            Err(error) => Err(not_entered(&error)),
        };
        let taps: Vec<_> = if reply.is_ok() { taps.iter().map(AsFd::as_fd).collect() } else { Vec::new() };
        socket.send(&reply, &taps).await
    })
}

/// By pidfd, so both namespaces are of one process, and of the recorded one. The user namespace comes first, which
/// gives the right to the other. A process that has made none yet is refused by the kernel (EINVAL).
fn enter(holder: &Process) -> io::Result<()> {
    let pidfd = holder.open().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    setns(&pidfd, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Only what proves it: a holder that is there and cannot be entered for want of memory is not gone.
fn not_entered(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::NotFound => Failure::NoNamespace,
        Some(libc::ESRCH | libc::EINVAL) => Failure::NoNamespace,
        _ => Failure::Other { op: "entering the namespace".to_owned(), message: error.to_string() },
    }
}

async fn run_all(ops: &[Op], taps: &mut Vec<OwnedFd>) -> Result<Vec<Outcome>, Error> {
    let links = Links::open()?;
    let mut outcomes = Vec::new();
    for op in ops {
        outcomes.push(run(&links, op, taps).await?);
    }
    Ok(outcomes)
}

async fn run(links: &Links, op: &Op, taps: &mut Vec<OwnedFd>) -> Result<Outcome, Error> {
    match op {
        Op::Base { bridge, address, prefix } => {
            links.loopback().await?;
            links::forward()?;
            links.bridge(bridge, Ipv4Addr::from(*address), *prefix).await?;
        }
        Op::AddTap { name, bridge } => {
            let tap = tap::open(name).map_err(|e| tap::failed(name, &e))?;
            if let Err(error) = links.isolated_port(name, bridge).await {
                // A TAP that is no isolated port must not stay.
                drop(tap);
                let _ = links.remove(name).await;
                return Err(error);
            }
            taps.push(tap);
            return Ok(Outcome::Tap);
        }
        Op::RemoveLink { name } => return Ok(Outcome::Removed(links.remove(name).await?)),
        Op::Ports { bridge } => return Ok(Outcome::Ports(links.ports(bridge).await?)),
        Op::Rules { text } => nft::load(text).await?,
        Op::RulesIfNone { text } => {
            if !nft::loaded().await? {
                nft::load(text).await?;
            }
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_schemas::codec::{decode, encode};

    #[test]
    fn requests_and_replies_survive_the_socket() {
        let ops = vec![
            Op::Base { bridge: "b".into(), address: [172, 16, 0, 1], prefix: 24 },
            Op::AddTap { name: "bg-aaaaaaaaaa".into(), bridge: "b".into() },
            Op::Rules { text: "table ip x".into() },
        ];
        assert_eq!(decode::<Vec<Op>>(&encode(&ops).unwrap()).unwrap(), ops);
        let reply: Reply = Err(Failure::Refused(Refusal::DevTunClosed { errno: 13 }));
        assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
    }
}
