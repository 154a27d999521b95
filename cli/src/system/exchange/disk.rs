//! What an exchange does to a disk, step by step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::super::plan::{Content, Planned};

/// The steps. Tests make them fail, one at a time.
pub(crate) trait Disk {
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Writes a file that was not there, down to the disk.
    fn write(&self, path: &Path, file: &Planned) -> io::Result<()>;
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    fn sync(&self, folder: &Path) -> io::Result<()>;
}

#[derive(Debug)]
pub(crate) struct Real;

impl Disk for Real {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o755).create(path)?;
        // Whatever the umask and the group of the folder above.
        own(&File::open(path)?, 0o755)
    }

    fn write(&self, path: &Path, file: &Planned) -> io::Result<()> {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        match &file.content {
            Content::Bytes(bytes) => to.write_all(bytes)?,
            Content::Copy(source) => drop(io::copy(&mut File::open(source)?, &mut to)?),
        }
        own(&to, file.mode)?;
        to.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Gives a file to whoever runs this, root on a host: `/usr/local` is of the group `staff` on Debian, and hands that on.
fn own(file: &File, mode: u32) -> io::Result<()> {
    fchown(file, Some(nix::unistd::geteuid().as_raw()), Some(nix::unistd::getegid().as_raw()))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}
