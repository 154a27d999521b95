//! The three disks every VM has: the image, its system disk and its work disk; and the overlay of the first two.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::{RootError, SYSROOT, attach, files, make_dir};
use crate::modules::Pending;

const IMAGE: &str = "/disks/image";
const SYSTEM: &str = "/disks/system";
const WORK: &str = "/disks/work";
/// Drivers find their disks in milliseconds or not at all.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Mounts the system disk.
pub(super) fn system(pending: &Pending) -> Result<OwnedFd, RootError> {
    // In the order in which they are loaded: ext4 is in the kernel, usually.
    for module in ["virtio_blk", "ext4"] {
        pending.wait_for(module);
    }
    mount_disk("/dev/vdb", SYSTEM)
}

/// Mounts the work disk, when the system disk's drivers are there.
pub(super) fn work() -> Result<OwnedFd, RootError> {
    mount_disk("/dev/vdc", WORK)
}

/// Images are EROFS; a registered one may be ext4, whose journal cannot be replayed on a disk that is read-only.
pub(super) fn image(pending: &Pending) -> Result<OwnedFd, RootError> {
    make_dir(IMAGE, 0o755)?;
    pending.wait_for("erofs");
    let disk = device("/dev/vda")?;
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    let mut result = attach(Some(disk), IMAGE, Some("erofs"), read_only, "");
    if matches!(result, Err(RootError::Mount { errno: Errno::EINVAL | Errno::ENODEV, .. })) {
        result = attach(Some(disk), IMAGE, Some("ext4"), read_only, "noload");
    }
    result.and_then(|()| folder(IMAGE))
}

fn mount_disk(disk: &'static str, target: &str) -> Result<OwnedFd, RootError> {
    make_dir(target, 0o755)?;
    // discard: what the guest deletes, the host's sparse file gives back.
    attach(Some(device(disk)?), target, Some("ext4"), MsFlags::MS_NOATIME, "discard")?;
    folder(target)
}

/// The folders of the system disk, at its first use.
pub(super) fn layers() -> Result<(), RootError> {
    let folders = ["real", "work", "upper"].map(|name| format!("{SYSTEM}/{name}"));
    // The last of them tells that all are there.
    if Path::new(&folders[2]).exists() {
        return Ok(());
    }
    folders.into_iter().try_for_each(|folder| make_dir(folder, 0o755))
}

/// Puts the system disk over the image.
pub(super) fn overlay(pending: &Pending) -> Result<(), RootError> {
    make_dir(SYSROOT, 0o755)?;
    pending.wait_for("overlay");
    // redirect_dir: without it the rename of a folder that the image brought is refused, which breaks installers.
    let options = format!("lowerdir={IMAGE},upperdir={SYSTEM}/upper,workdir={SYSTEM}/work,redirect_dir=on");
    attach(Some("overlay"), SYSROOT, Some("overlay"), MsFlags::empty(), &options)
}

/// Waits until the driver has found the disk.
#[allow(clippy::disallowed_methods, reason = "runs on a thread of its own, beside the runtime")]
fn device(path: &'static str) -> Result<&'static str, RootError> {
    let started = Instant::now();
    while !Path::new(path).exists() {
        if started.elapsed() > DEVICE_DEADLINE {
            return Err(RootError::NoDevice(path));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(path)
}

fn folder(path: &str) -> Result<OwnedFd, RootError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened = open(path, flags, Mode::empty()).map_err(std::io::Error::from);
    opened.map(|fd| OwnedFd::from(File::from(fd))).map_err(files(path))
}
