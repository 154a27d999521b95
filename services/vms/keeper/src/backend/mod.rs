//! What it takes to be a VMM here: a process that runs the VM, and a way to ask it to end.
//!
//! A backend knows its VMM's command line and API; what a VM's life means is not its business.

mod agent;
pub mod firecracker;
mod kernel;
mod process;
pub mod qemu;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use banger_schemas::keeper::{Backend as Kind, Launch};
use futures_util::future::LocalBoxFuture;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;

use crate::tsc::Tsc;
pub use agent::{Agent, Unreachable};

/// What a VM is made of, all of it opened by somebody else.
#[derive(Debug)]
pub struct Files {
    pub kernel: OwnedFd,
    pub initramfs: OwnedFd,
    pub image: OwnedFd,
    pub system: OwnedFd,
    pub work: OwnedFd,
    pub tap: Option<OwnedFd>,
    /// The guest's memory, where it is not the VMM's own.
    pub memory: Option<Memory>,
}

/// A guest's memory that outlives its VMM.
#[derive(Debug)]
pub struct Memory {
    pub ram: OwnedFd,
    /// The state of its devices and processors.
    pub devices: OwnedFd,
    /// A frozen guest's, which goes on; else empty.
    pub frozen: bool,
}

/// A running VMM and what connects it to its keeper. Everything that comes out of it is hostile.
pub struct Machine {
    pub child: Child,
    /// None: it ends by being killed.
    pub control: Option<Box<dyn Control>>,
    pub agent: Agent,
    /// What the guest writes to its serial port.
    pub console: UnixStream,
    /// What the VMM itself has to say.
    pub messages: pipe::Receiver,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("child", &self.child).finish_non_exhaustive()
    }
}

/// A kind of VMM.
pub trait Backend {
    /// Starts the VMM; done when its process runs and needs nothing more to run the guest. Of one that fails nothing
    /// is left.
    fn launch<'a>(&'a self, launch: &'a Launch, files: Files) -> LocalBoxFuture<'a, io::Result<Machine>>;
}

/// The VMM's own interface.
pub trait Control {
    /// Asks the VMM to end; done when it has agreed. The process may outlive the answer by a moment.
    fn quit(&mut self) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Stops the guest for good and keeps it in the memory that it was launched with.
    fn freeze(&mut self) -> LocalBoxFuture<'_, io::Result<()>>;
}

/// The backend of that kind.
pub fn of(kind: Kind, tsc: Tsc) -> Box<dyn Backend> {
    match kind {
        Kind::QemuTcg | Kind::QemuKvm => Box::new(qemu::Qemu { tsc }),
        Kind::Firecracker => Box::new(firecracker::Firecracker),
    }
}

/// A launch as any, for the tests of what backends make of it.
#[cfg(test)]
fn some_launch(backend: Kind) -> Launch {
    Launch {
        backend,
        vmm: "/vmm".into(),
        vcpus: 2,
        memory_mib: 1024,
        mac: Some([2, 0, 0, 0, 0xab, 1]),
        tap: true,
        leased: false,
        keeps_console: false,
        volatile: false,
    }
}

/// Our end of a stream, known to the runtime, and the VMM's.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
