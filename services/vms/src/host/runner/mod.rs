//! Where a VM's keeper runs: a detached process of this user, or a unit of the system's service manager. Either way it
//! serves a packet socket, outlives its supervisor and takes its VMM along when it ends.

mod detached;
mod systemd;
mod unit;

use std::fmt::Debug;
use std::path::PathBuf;

use banger_bus::process::Process;
use banger_schemas::VmId;
use banger_schemas::error::Result;
use futures_util::future::BoxFuture;

pub(crate) use detached::Detached;
pub(crate) use unit::Units;

/// What a VM may use of its host, whatever its guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) haste: Haste,
}

/// Whether anybody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    Waited,
    /// It runs where nobody else wants to.
    None,
}

/// Starts keepers and ends them. Every method may be repeated.
pub(crate) trait Runner: Debug + Send + Sync {
    /// The folder of the VM's control socket, and its name there.
    fn socket(&self, vm: &VmId) -> (PathBuf, String);

    /// Makes the control socket and a keeper behind it, which waits for its launch for some seconds. What is to be
    /// remembered of it, if its socket's name does not say all.
    fn start<'a>(&'a self, vm: &'a VmId, limits: Limits) -> BoxFuture<'a, Result<Option<Process>>>;

    /// Whether there may be a keeper; `false` only where there is none for sure.
    fn may_live<'a>(&'a self, vm: &'a VmId, keeper: Option<&'a Process>) -> BoxFuture<'a, bool>;

    /// Ends the keeper, and its VMM with it, at once; done when both are gone. `Gone` when there was none.
    fn kill<'a>(&'a self, vm: &'a VmId, keeper: Option<&'a Process>) -> BoxFuture<'a, Result<()>>;

    /// Waits for a keeper that is about to end, and puts away what it ran in.
    fn settle<'a>(&'a self, vm: &'a VmId, keeper: Option<&'a Process>) -> BoxFuture<'a, Result<()>>;

    /// VMs that there is a keeper's place for, with or without a record of ours.
    fn all(&self) -> BoxFuture<'_, Result<Vec<VmId>>>;
}
