//! Registering descriptors with the runtime.
#![allow(unsafe_code, reason = "tokio cannot know that a descriptor stays open as long as its registration")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// A type that owns its descriptor and closes it only when dropped.
pub(crate) trait Owned: AsRawFd {}
impl Owned for OwnedFd {}

/// Watches a descriptor for reading and writing.
pub(crate) fn registered<T: Owned>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the AsyncFd owns the value and never gives it away mutably; `Owned` types stay open until dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
