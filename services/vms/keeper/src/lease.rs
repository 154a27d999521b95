//! The client that a VM was leased to, as a pidfd: when its process ends, so does the VM.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use crate::fds;

/// A process somebody depends on.
#[derive(Debug)]
pub(crate) struct Lease(AsyncFd<OwnedFd>);

impl Lease {
    /// Takes over a pidfd.
    pub(crate) fn new(pidfd: OwnedFd) -> io::Result<Self> {
        fds::readable(pidfd).map(Lease)
    }

    /// Waits until the process has ended. A pidfd is readable from then on, see pidfd_open(2).
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(|_| ())
    }
}
