//! Disks as files: sparse raw ext4, copied from a template in milliseconds, published by rename.
//!
//! `<folder>/<holder>/{system,work}.ext4`; a folder that is being made or removed is below `<folder>/.tmp`, which
//! is emptied at start: so a holder's disks are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use banger_bus::dirs::private_folder;
use banger_bus::sparse;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::{VmId, size};

/// Kept free on the host's disk: below it no disk is made.
const RESERVE: u64 = 1 << 30;
/// Templates that are kept, one for each size: those that were used last.
const TEMPLATES: usize = 8;
const TEMPLATE: &str = ".template-";
/// Extension of what waits to be freed.
const GONE: &str = "gone";
/// A VMM opens what it was given once more, and is of the files' group only (on a host; the folder above is closed to all).
const MODE: u32 = 0o660;
const NAMES: [&str; 2] = ["system.ext4", "work.ext4"];

/// The folder of all disks.
#[derive(Debug)]
pub(crate) struct Disks {
    folder: PathBuf,
    /// Counts what was removed, for a name until it is freed.
    gone: AtomicU64,
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
        let disks = Disks { folder, gone: AtomicU64::new(0) };
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
        self.publish(holder, durable, || {
            let template = self.template(size_mib)?;
            Ok([template.try_clone().map_err(Error::internal)?, template])
        })
    }

    /// The same with copies of these two.
    pub(crate) fn copy(&self, holder: &VmId, disks: [OwnedFd; 2], durable: bool) -> Result<()> {
        let disks = disks.map(File::from);
        for disk in &disks {
            let meta = disk.metadata().map_err(Error::internal)?;
            if !meta.is_file() || meta.len() % (1 << 20) != 0 || size::disk_mib(meta.len() >> 20).is_err() {
                return Err(Error::invalid("what is to be copied is no disk"));
            }
        }
        self.publish(holder, durable, || Ok(disks))
    }

    /// Makes a holder's disks of what `from` brings, if it has none.
    fn publish(&self, holder: &VmId, durable: bool, from: impl FnOnce() -> Result<[File; 2]>) -> Result<()> {
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
        let from = from()?;
        let making = self.tmp().join(holder.as_str());
        let published = private_folder(&making).and_then(|()| {
            for (name, from) in NAMES.iter().zip(&from) {
                copy(from, &making.join(name), durable)?;
            }
            if durable {
                sync_folder(&making)?;
            }
            fs::rename(&making, &home).map_err(failed("publish", &home))
        });
        if let Err(error) = published {
            // What cannot be removed now goes at the next start.
            drop(fs::remove_dir_all(&making));
            return Err(error);
        }
        if durable { sync_folder(&self.folder) } else { Ok(()) }
    }

    /// The pristine file system of this size. Open, since another's turn may remove it.
    fn template(&self, size_mib: u64) -> Result<File> {
        let path = self.folder.join(format!("{TEMPLATE}{size_mib}.ext4"));
        let template = match File::open(&path) {
            Ok(template) => template,
            Err(_) => self.make_template(size_mib, &path)?,
        };
        template.set_modified(SystemTime::now()).map_err(failed("mark", &path))?;
        Ok(template)
    }

    fn make_template(&self, size_mib: u64, path: &Path) -> Result<File> {
        self.forget_templates()?;
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
            drop(fs::remove_file(&making));
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(Error::internal(format!("mke2fs failed: {}", said.trim())));
        }
        let template = File::open(&making).map_err(failed("read", &making))?;
        template.sync_all().map_err(failed("write", &making))?;
        fs::rename(&making, path).map_err(failed("publish", path))?;
        Ok(template)
    }

    /// Makes room for one more template: those go that were not used for longest.
    fn forget_templates(&self) -> Result<()> {
        let mut templates = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(TEMPLATE) {
                continue;
            }
            // One that is gone by now is another's work.
            let used = entry.metadata().and_then(|meta| meta.modified());
            templates.extend(used.map(|used| (used, entry.path())));
        }
        templates.sort();
        let most = templates.len().saturating_sub(TEMPLATES - 1);
        for (_, path) in &templates[..most] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
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
        // What the same holder had before may still be there.
        let number = self.gone.fetch_add(1, Ordering::Relaxed);
        let (home, going) = (self.of(holder), self.tmp().join(format!("{holder}-{number}.{GONE}")));
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
fn copy(from: &File, to: &Path, durable: bool) -> Result<()> {
    let target = OpenOptions::new().write(true).create_new(true).mode(MODE).open(to).map_err(failed("make", to))?;
    sparse::copy(from, &target).map_err(failed("write", to))?;
    if durable { target.sync_all().map_err(failed("write", to)) } else { Ok(()) }
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
        // Made and removed again before the first is freed.
        disks.create(&holder, 64, true).unwrap();
        disks.delete(&holder).unwrap();
        disks.bury();
        assert_eq!(fs::read_dir(disks.tmp()).unwrap().count(), 0);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn of_templates_those_are_kept_that_were_used_last() {
        let folder = scratch("templates");
        let disks = Disks::open(folder.clone()).unwrap();
        let sizes = || {
            let names = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let size = |n: String| n.strip_prefix(TEMPLATE)?.strip_suffix(".ext4")?.parse::<u64>().ok();
            let mut sizes: Vec<u64> = names.filter_map(size).collect();
            sizes.sort_unstable();
            sizes
        };
        let full: Vec<u64> = (64..64 + TEMPLATES as u64).collect();
        let mut held = Vec::new();
        for size in &full {
            held.push(disks.template(*size).unwrap());
        }
        assert_eq!(sizes(), full);
        let inode = |file: &File| file.metadata().unwrap().ino();
        assert_eq!(inode(&disks.template(64).unwrap()), inode(&held[0]), "made once, and used now");
        disks.template(200).unwrap();
        let mut now = full.clone();
        now.remove(1);
        now.push(200);
        assert_eq!(sizes(), now);
        assert_eq!(held[1].metadata().unwrap().len(), 65 << 20, "whoever copies from it goes on");
        disks.template(65).unwrap();
        assert!(sizes().contains(&65) && sizes().len() == TEMPLATES);
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
    fn a_copy_is_of_disks_and_of_nothing_else() {
        let folder = scratch("copy");
        let disks = Disks::open(folder.clone()).unwrap();
        let (from, to): (VmId, VmId) = ("abcdefghij".parse().unwrap(), "bcdefghijk".parse().unwrap());
        disks.create(&from, 64, true).unwrap();
        let pair = || {
            let (system, work) = disks.open_pair(&from).unwrap();
            [system, work]
        };
        disks.copy(&to, pair(), true).unwrap();
        let read = |holder: &str| fs::read(folder.join(holder).join(NAMES[1])).unwrap();
        assert!(read("abcdefghij") == read("bcdefghijk"));
        let other: VmId = "cdefghijkl".parse().unwrap();
        for wrong in ["/dev/null", "/proc/self/stat", "/"] {
            let [system, _] = pair();
            let refused = disks.copy(&other, [system, File::open(wrong).unwrap().into()], true).unwrap_err();
            assert_eq!(refused.kind, Kind::InvalidArgument, "{wrong}");
        }
        // Found out only while it is copied: nothing half made is left.
        let unreadable = File::options().write(true).open(folder.join("abcdefghij").join(NAMES[0])).unwrap();
        let [system, _] = pair();
        disks.copy(&other, [system, unreadable.into()], true).unwrap_err();
        assert_eq!(fs::read_dir(disks.tmp()).unwrap().count(), 0);
        assert_eq!(disks.usage().unwrap().len(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }
}
