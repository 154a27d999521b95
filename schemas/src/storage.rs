//! Storage1: the disks of VMs.

use zbus::proxy;
use zbus::wire::{Fd, OwnedFd};

use crate::options::Dict;

pub const NAME: &str = "dev.banger.Storage1";
pub const PATH: &str = "/dev/banger/Storage1";
pub const MANAGER: &str = "dev.banger.Storage1.Manager";

/// Disks by their holder (a VM's id).
#[proxy(
    interface = "dev.banger.Storage1.Manager",
    default_service = "dev.banger.Storage1",
    default_path = "/dev/banger/Storage1"
)]
pub trait Manager {
    /// Makes the holder's system disk and work disk, each sparse and of at most `size_mib`. Repeatable. `options`:
    /// `volatile b`: they need not outlive a crash of the host.
    fn create(&self, holder: &str, size_mib: u64, options: Dict) -> zbus::Result<()>;

    /// Makes the holder's disks as copies of these two, which nobody writes. Repeatable. `options` as of `Create`.
    fn copy(&self, holder: &str, system: Fd<'_>, work: Fd<'_>, options: Dict) -> zbus::Result<()>;

    /// The holder's system disk and work disk, open for reading and writing.
    fn open(&self, holder: &str, options: Dict) -> zbus::Result<(OwnedFd, OwnedFd)>;

    /// Removes the holder's disks. Repeatable.
    fn delete(&self, holder: &str, options: Dict) -> zbus::Result<()>;

    /// Holder, apparent bytes and allocated bytes of all disks.
    fn usage(&self) -> zbus::Result<Vec<(String, u64, u64)>>;

    /// Bytes that are free where disks live, and the bytes that are kept in reserve.
    fn room(&self) -> zbus::Result<(u64, u64)>;
}
