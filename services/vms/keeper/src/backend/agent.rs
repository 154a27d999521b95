//! The way to the guest's agent: one stream for the VM's whole life, or one that is asked for again and again.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::UnixStream;

use super::firecracker::Vsock;
use crate::fds;

/// What leads to the agent.
#[derive(Debug)]
pub enum Agent {
    /// Its VMM's end of the agent's port.
    Port(StdUnixStream),
    /// Its VMM's door to the guest's vsock.
    Vsock(Vsock),
}

/// Why there is no stream to the agent, and will be none.
#[derive(Debug)]
pub enum Unreachable {
    /// The VMM is ending.
    Closed,
    /// The VMM is there, and its guest has stopped for good.
    Halted,
}

impl Agent {
    /// A stream to the agent, for one connection. Waits for a guest that has yet to listen.
    pub async fn connect(&mut self) -> Result<UnixStream, Unreachable> {
        match self {
            Agent::Port(port) => again(port).map_err(|_| Unreachable::Closed),
            Agent::Vsock(vsock) => vsock.connect().await,
        }
    }

    /// Whether a stream that broke off leaves nothing to connect to.
    pub fn ends_with_its_stream(&self) -> bool {
        matches!(self, Agent::Port(_))
    }

    /// Whether the VMM has closed the way for good.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Agent::Port(port) => fds::hung_up(port),
            Agent::Vsock(_) => false,
        }
    }
}

/// A connection takes its stream with it, so each gets a descriptor of its own.
fn again(port: &StdUnixStream) -> io::Result<UnixStream> {
    UnixStream::from_std(port.try_clone()?)
}
