//! The guest's root: the image below, the VM's own disks above, and everything that an init expects to find mounted.

mod disks;
mod home;
mod tree;
mod warm;

use std::fs::{self, DirBuilder};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::modules::Pending;

pub(crate) use warm::warm;

/// Where the root is assembled, and where PID 1 finds it when it becomes the image's init.
pub(crate) const SYSROOT: &str = "/sysroot";

/// Container engines want a real file system under their layers: an overlay on an overlay is refused.
const REAL: [(&str, &str); 3] =
    [("/var/lib/docker", "docker"), ("/var/lib/containerd", "containerd"), ("/var/lib/containers", "containers")];

/// What the kernel offers and every guest has, `(kind, target, flags, options)`; mounted after the chroot.
const KERNEL: [(&str, &str, MsFlags, &str); 3] = [
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
    ("devpts", "/dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "mode=0620,gid=5,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777"),
];

/// What shells and programs take for granted, and neither the kernel nor an image has.
const STREAMS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Why the root could not be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("{0} did not appear")]
    NoDevice(&'static str),
    #[error("cannot mount {what}: {}", .errno.desc())]
    Mount { what: String, errno: Errno },
    #[error("{what}: {error}")]
    Files { what: String, error: std::io::Error },
}

fn files(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RootError {
    let what = what.into();
    move |error| RootError::Files { what, error }
}

/// The disks that carry the root. Their paths are out of reach after the chroot; their descriptors are not.
#[derive(Debug)]
pub(crate) struct Root {
    image: OwnedFd,
    system: OwnedFd,
    work: OwnedFd,
}

impl Root {
    /// A path on the system disk that no path of the guest leads to.
    pub(crate) fn system(&self, path: &str) -> PathBuf {
        below(&self.system, path)
    }

    /// The disks that can be written, in the order to flush them.
    pub(crate) fn writable(&self) -> [&OwnedFd; 2] {
        [&self.work, &self.system]
    }
}

/// A path relative to an open folder, whatever root the process has.
fn below(folder: &OwnedFd, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{path}", folder.as_raw_fd()))
}

/// Mounts the disks, puts the root together and enters it. The process sees nothing of the initramfs afterwards.
pub(crate) fn assemble(pending: &Pending) -> Result<Root, RootError> {
    let root = thread::scope(|beside| {
        let system = disks::system(pending)?;
        let work = beside.spawn(disks::work);
        disks::layers()?;
        let image = disks::image(pending)?;
        // By its path, so not behind the chroot.
        Ok(Root { image, system, work: joined(work)? })
    })?;
    thread::scope(|beside| {
        let filled = beside.spawn(|| home::fill(&root));
        enter(&root, pending)?;
        joined(filled)
    })?;
    home::attach(&root)?;
    Ok(root)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes the image and the system disk the root of this process.
fn enter(root: &Root, pending: &Pending) -> Result<(), RootError> {
    disks::overlay(pending)?;
    for target in ["/dev", "/proc", "/sys"] {
        let inside = format!("{SYSROOT}{target}");
        fs::create_dir_all(&inside).map_err(files(&inside))?;
        // Not moved: other threads find them under these names at any moment before and after the chroot.
        attach(Some(target), &inside, None, MsFlags::MS_BIND, "")?;
    }
    nix::unistd::chroot(SYSROOT)
        .and_then(|()| nix::unistd::chdir("/"))
        .map_err(|errno| RootError::Files { what: SYSROOT.into(), error: errno.into() })?;
    for (kind, target, flags, options) in KERNEL {
        fs::create_dir_all(target).map_err(files(target))?;
        attach(Some(kind), target, Some(kind), flags, options)?;
    }
    for (name, target) in STREAMS {
        // There already, in an image that is no usual one: its own matter.
        let _ = symlink(target, name);
    }
    if !Path::new("/tmp").exists() {
        make_dir("/tmp", 0o1777)?;
    }
    for (target, name) in REAL {
        real_folder(root, target, name)?;
    }
    Ok(())
}

/// Puts a folder of the system disk's ext4 under `target`, at first use with what the image has there.
fn real_folder(root: &Root, target: &str, name: &str) -> Result<(), RootError> {
    let real = root.system(&format!("real/{name}"));
    if !real.exists() {
        let folder = root.system("real");
        tree::publish(Path::new(target), &folder, name).map_err(files(target))?;
    }
    fs::create_dir_all(target).map_err(files(target))?;
    attach(Some(&real), target, None, MsFlags::MS_BIND, "")
}

/// Makes a folder with exactly this mode, whatever the umask.
fn make_dir(path: impl AsRef<Path>, mode: u32) -> Result<(), RootError> {
    let path = path.as_ref();
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(files(path.display().to_string()))
}

fn attach<S: nix::NixPath + ?Sized>(
    source: Option<&S>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    options: &str,
) -> Result<(), RootError> {
    mount(source, target, kind, flags, Some(options))
        .map_err(|errno| RootError::Mount { what: target.to_owned(), errno })
}
