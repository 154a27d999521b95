//! The three disks every VM has: the image, its system disk and its work disk; and the overlay of the first two.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::{Root, RootError, SYSROOT, attach, files, make_dir};

const IMAGE: &str = "/disks/image";
const SYSTEM: &str = "/disks/system";
const WORK: &str = "/disks/work";
/// Drivers find their disks in milliseconds or not at all.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn mount_all() -> Result<Root, RootError> {
    for folder in [IMAGE, SYSTEM, WORK, SYSROOT] {
        make_dir(folder, 0o755)?;
    }
    mount_image()?;
    mount_disk("/dev/vdb", SYSTEM)?;
    mount_disk("/dev/vdc", WORK)?;
    overlay()?;
    Ok(Root { image: folder(IMAGE)?, system: folder(SYSTEM)?, work: folder(WORK)? })
}

/// Images are EROFS; a registered one may be ext4, whose journal cannot be replayed on a disk that is read-only.
fn mount_image() -> Result<(), RootError> {
    let disk = device("/dev/vda")?;
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    let mut result = attach(Some(disk), IMAGE, Some("erofs"), read_only, "");
    if matches!(result, Err(RootError::Mount { errno: Errno::EINVAL | Errno::ENODEV, .. })) {
        result = attach(Some(disk), IMAGE, Some("ext4"), read_only, "noload");
    }
    result
}

fn mount_disk(disk: &'static str, target: &str) -> Result<(), RootError> {
    // discard: what the guest deletes, the host's sparse file gives back.
    attach(Some(device(disk)?), target, Some("ext4"), MsFlags::MS_NOATIME, "discard")
}

fn overlay() -> Result<(), RootError> {
    let upper = format!("{SYSTEM}/upper");
    if !Path::new(&upper).exists() {
        make_dir(format!("{SYSTEM}/real"), 0o755)?;
        make_dir(format!("{SYSTEM}/work"), 0o755)?;
        make_dir(&upper, 0o755)?;
    }
    // redirect_dir: without it the rename of a folder that the image brought is refused, which breaks installers.
    let options = format!("lowerdir={IMAGE},upperdir={upper},workdir={SYSTEM}/work,redirect_dir=on");
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
    // Not O_PATH: the descriptor must also do for syncfs.
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened = open(path, flags, Mode::empty()).map_err(std::io::Error::from);
    opened.map(|fd| OwnedFd::from(File::from(fd))).map_err(files(path))
}
