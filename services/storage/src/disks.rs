//! Disks as files: sparse raw ext4, copied from a template in milliseconds, published by rename.
//!
//! `<folder>/<holder>/{system,work}.ext4`; a folder that is being made or removed is below `<folder>/.tmp`, which
//! is emptied at start: so a holder's disks are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_bus::dirs::private_folder;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use nix::unistd::{Whence, lseek};

/// Kept free on the host's disk: below it no disk is made.
const RESERVE: u64 = 1 << 30;
/// Extension of what waits to be freed.
const GONE: &str = "gone";
/// A VMM opens what it was given once more, and is of the files' group only (on a host; the folder above is closed to all).
const MODE: u32 = 0o660;
const NAMES: [&str; 2] = ["system.ext4", "work.ext4"];

/// The folder of all disks.
#[derive(Debug)]
pub(crate) struct Disks {
    folder: PathBuf,
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Internal,
        };
        Error::new(kind, format!("cannot {what} {}: {error}", path.display()))
    }
}

impl Disks {
    /// Opens the folder and removes what a crash left half made.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        private_folder(&folder)?;
        let disks = Disks { folder };
        let tmp = disks.tmp();
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(failed("empty", &tmp))?;
        }
        private_folder(&tmp)?;
        Ok(disks)
    }

    fn tmp(&self) -> PathBuf {
        self.folder.join(".tmp")
    }

    fn of(&self, holder: &VmId) -> PathBuf {
        self.folder.join(holder.as_str())
    }

    /// Makes both disks of a holder, or finds them made.
    pub(crate) fn create(&self, holder: &VmId, size_mib: u64, durable: bool) -> Result<()> {
        let home = self.of(holder);
        if home.exists() {
            return Ok(());
        }
        let (free, reserve) = self.room()?;
        if free < reserve {
            return Err(Error::new(
                Kind::NoSpace,
                format!(
                    "{} MiB are free in {}, and {} are kept in reserve: make room there first",
                    free >> 20,
                    self.folder.display(),
                    reserve >> 20
                ),
            ));
        }
        let template = self.template(size_mib)?;
        let making = self.tmp().join(holder.as_str());
        private_folder(&making)?;
        for name in NAMES {
            copy_sparse(&template, &making.join(name), durable)?;
        }
        if durable {
            sync_folder(&making)?;
        }
        fs::rename(&making, &home).map_err(failed("publish", &home))?;
        if durable { sync_folder(&self.folder) } else { Ok(()) }
    }

    /// The pristine file system of this size, made once.
    fn template(&self, size_mib: u64) -> Result<PathBuf> {
        let path = self.folder.join(format!(".template-{size_mib}.ext4"));
        if path.exists() {
            return Ok(path);
        }
        let making = self.tmp().join(format!("template-{size_mib}-{:?}", std::thread::current().id()));
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-L", "banger"])
            .arg(&making)
            .arg(format!("{size_mib}M"))
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .map_err(|e| {
                Error::new(Kind::Unavailable, format!("cannot run mke2fs ({e}): install the package e2fsprogs"))
            })?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(Error::internal(format!("mke2fs failed: {}", said.trim())));
        }
        File::open(&making).and_then(|f| f.sync_all()).map_err(failed("write", &making))?;
        fs::rename(&making, &path).map_err(failed("publish", &path))?;
        Ok(path)
    }

    /// Both disks of a holder, for reading and writing.
    pub(crate) fn open_pair(&self, holder: &VmId) -> Result<(OwnedFd, OwnedFd)> {
        let open = |name| {
            let path = self.of(holder).join(name);
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&path)
                .map(OwnedFd::from)
                .map_err(failed("open", &path))
        };
        Ok((open(NAMES[0])?, open(NAMES[1])?))
    }

    /// Removes a holder's disks; none is fine too.
    pub(crate) fn delete(&self, holder: &VmId) -> Result<()> {
        let (home, going) = (self.of(holder), self.tmp().join(format!("{holder}.{GONE}")));
        match fs::rename(&home, &going) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("remove", &home)(e)),
        }
    }

    /// Frees what was removed.
    pub(crate) fn bury(&self) {
        let Ok(entries) = fs::read_dir(self.tmp()) else { return };
        for entry in entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == GONE)) {
            // Two who do this at once, or a file that stays: the next start removes it.
            drop(fs::remove_dir_all(entry.path()));
        }
    }

    /// Holder, apparent and allocated bytes.
    pub(crate) fn usage(&self) -> Result<Vec<(String, u64, u64)>> {
        let mut rows = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))? {
            let entry = entry.map_err(failed("list", &self.folder))?;
            let Some(holder) = entry.file_name().to_str().and_then(|n| n.parse::<VmId>().ok()) else { continue };
            let (mut apparent, mut allocated) = (0, 0);
            for meta in NAMES.iter().filter_map(|name| fs::metadata(entry.path().join(name)).ok()) {
                apparent += meta.len();
                allocated += meta.blocks() * 512;
            }
            rows.push((holder.to_string(), apparent, allocated));
        }
        Ok(rows)
    }

    /// Free bytes, reserve.
    pub(crate) fn room(&self) -> Result<(u64, u64)> {
        let stat = nix::sys::statvfs::statvfs(&self.folder).map_err(Error::internal)?;
        Ok((stat.blocks_available() * stat.fragment_size(), RESERVE))
    }
}

/// Copies what holds data; holes stay holes.
fn copy_sparse(from: &Path, to: &Path, durable: bool) -> Result<()> {
    let source = File::open(from).map_err(failed("read", from))?;
    let size = source.metadata().map_err(failed("read", from))?.len();
    let target = OpenOptions::new().write(true).create_new(true).mode(MODE).open(to).map_err(failed("make", to))?;
    target.set_len(size).map_err(failed("make", to))?;
    let mut at = 0i64;
    loop {
        let data = match lseek(&source, at, Whence::SeekData) {
            Ok(data) => data,
            Err(nix::errno::Errno::ENXIO) => break,
            Err(e) => return Err(failed("read", from)(e.into())),
        };
        let end = lseek(&source, data, Whence::SeekHole).map_err(|e| failed("read", from)(e.into()))?;
        copy_range(&source, &target, data, end).map_err(failed("write", to))?;
        at = end;
    }
    if durable { target.sync_all().map_err(failed("write", to)) } else { Ok(()) }
}

fn copy_range(source: &File, target: &File, mut at: i64, end: i64) -> std::io::Result<()> {
    let mut out = at;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        // The kernel moves both offsets on.
        if nix::fcntl::copy_file_range(source, Some(&mut at), target, Some(&mut out), length)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("banger-disks-{name}-{}", std::process::id()))
    }

    #[test]
    fn disks_are_made_once_opened_counted_and_removed() {
        let folder = scratch("life");
        let disks = Disks::open(folder.clone()).unwrap();
        let holder: VmId = "abcdefghij".parse().unwrap();
        assert_eq!(disks.open_pair(&holder).unwrap_err().kind, Kind::NotFound);
        disks.create(&holder, 64, true).unwrap();
        let (system, _work) = disks.open_pair(&holder).unwrap();
        let inode = File::from(system).metadata().unwrap().ino();
        disks.create(&holder, 64, true).unwrap();
        let (again, _work) = disks.open_pair(&holder).unwrap();
        assert_eq!(File::from(again).metadata().unwrap().ino(), inode, "a repeated create makes nothing new");
        let usage = disks.usage().unwrap();
        assert_eq!(usage.len(), 1);
        assert!(usage[0].1 == 128 << 20 && usage[0].2 < 32 << 20, "sparse: {usage:?}");
        disks.delete(&holder).unwrap();
        disks.delete(&holder).unwrap();
        assert!(disks.usage().unwrap().is_empty());
        disks.bury();
        assert_eq!(fs::read_dir(disks.tmp()).unwrap().count(), 0);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_a_crash_left_half_made_is_gone_at_the_next_start() {
        let folder = scratch("crash");
        drop(Disks::open(folder.clone()).unwrap());
        fs::create_dir(folder.join(".tmp/abcdefghij")).unwrap();
        let disks = Disks::open(folder.clone()).unwrap();
        assert!(disks.usage().unwrap().is_empty() && !folder.join(".tmp/abcdefghij").exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_copy_has_the_same_bytes() {
        let folder = scratch("copy");
        fs::create_dir_all(&folder).unwrap();
        let (from, to) = (folder.join("a"), folder.join("b"));
        let file = File::create(&from).unwrap();
        file.set_len(3 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 1 << 20).unwrap();
        copy_sparse(&from, &to, true).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
        fs::remove_dir_all(&folder).unwrap();
    }
}
