//! Templates on the disk: a folder each, named by its key, which appears whole or not at all.
//!
//! Only a cache, so nothing is synced: what a power cut leaves is found damaged by its digests, and is removed. Folder
//! and files are the service's own; what anybody else has put there is no template.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use banger_bus::dirs::private_folder;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Origin;
use serde::{Deserialize, Serialize};

use super::key::Key;
use super::memory::{self, Contents};

const MANIFEST: &str = "manifest.json";
const RAM: &str = "ram";
const DEVICES: &str = "devices";
const DISKS: [&str; 2] = ["system.ext4", "work.ext4"];
const READ_ONLY: u32 = 0o400;
/// What is being made, beside what is there.
const MAKING: &str = ".making";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    key: Key,
    /// Names, for who looks at the list.
    image: String,
    kernel: String,
    /// What it has said at its console: what people read, so no digest guards it.
    #[serde(default)]
    console: String,
    origin: Origin,
    ram: Contents,
    devices: Contents,
    disks: [Contents; 2],
}

/// A frozen guest, ready to go on any number of times.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) console: String,
    /// Both sealed.
    ram: File,
    devices: File,
    /// The pristine disks as they were when their digests were right.
    disks: [(PathBuf, Stamp); 2],
}

/// What changes when a file is written, whoever does it (inode(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Stamp { inode: (meta.dev(), meta.ino()), size: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) })
    }
}

impl Frozen {
    /// The guest's memory and its devices' state, for one VMM.
    pub(crate) fn guest(&self) -> Result<[OwnedFd; 2]> {
        let open = |memory| memory::reopened(memory).map_err(Error::internal);
        Ok([open(&self.ram)?, open(&self.devices)?])
    }

    /// The pristine disks, to be copied.
    pub(crate) fn disks(&self) -> Result<[OwnedFd; 2]> {
        let open = |(path, stamp): &(PathBuf, Stamp)| {
            let file = File::open(path).map_err(damaged)?;
            match Stamp::of(&file).map_err(damaged)? == *stamp {
                true => Ok(file.into()),
                false => Err(damaged(format!("{} was written", path.display()))),
            }
        };
        Ok([open(&self.disks[0])?, open(&self.disks[1])?])
    }
}

/// A template as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) key: Key,
    pub(crate) image: String,
    pub(crate) kernel: String,
    /// What it takes on the disk.
    pub(crate) bytes: u64,
    /// Seconds since the epoch.
    pub(crate) made: u64,
    pub(crate) used: u64,
}

/// What a maker has.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) image: String,
    pub(crate) kernel: String,
    pub(crate) console: String,
    pub(crate) origin: Origin,
    pub(crate) ram: File,
    pub(crate) devices: File,
    pub(crate) disks: [File; 2],
}

#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("the template is damaged: {what}"))
}

fn seconds(time: std::io::Result<SystemTime>) -> u64 {
    time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

impl Store {
    /// Opens the folder and removes what a crash left half made.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        private_folder(&folder)?;
        let store = Store { folder };
        store.remove(MAKING)?;
        Ok(store)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.home(name).exists()
    }

    fn home(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes a template; none is fine too. Machines that go on from it are not disturbed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let home = self.home(name);
        // Whatever lies there under such a name.
        let removed = if home.is_dir() { fs::remove_dir_all(&home) } else { fs::remove_file(&home) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::internal(format!("cannot remove the template {name}: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Keeps a frozen guest. Its memory is sealed and is the template's from now on.
    pub(crate) fn publish(&self, key: &Key, parts: Parts) -> Result<Frozen> {
        let name = key.name();
        let making = self.home(MAKING).join(&name);
        private_folder(&self.home(MAKING))?;
        let published = self.publish_in(&making, &name, key, parts);
        if published.is_err() {
            drop(fs::remove_dir_all(&making));
        }
        published
    }

    fn publish_in(&self, making: &Path, name: &str, key: &Key, parts: Parts) -> Result<Frozen> {
        let failed = |error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::NoSpace,
                _ => Kind::Internal,
            };
            Error::new(kind, format!("cannot keep the template {name}: {error}"))
        };
        private_folder(making)?;
        // Sealed first: what is written is what machines go on from.
        memory::seal(&parts.ram).map_err(failed)?;
        memory::seal(&parts.devices).map_err(failed)?;
        let keep = |file: &str, from: &File| {
            let mut options = OpenOptions::new();
            let to = options.write(true).create_new(true).mode(READ_ONLY).open(making.join(file))?;
            memory::copy(from, &to)
        };
        let manifest = Manifest {
            key: key.clone(),
            image: parts.image,
            kernel: parts.kernel,
            console: parts.console.clone(),
            origin: parts.origin.clone(),
            ram: keep(RAM, &parts.ram).map_err(failed)?,
            devices: keep(DEVICES, &parts.devices).map_err(failed)?,
            disks: [keep(DISKS[0], &parts.disks[0]).map_err(failed)?, keep(DISKS[1], &parts.disks[1]).map_err(failed)?],
        };
        let path = making.join(MANIFEST);
        fs::write(&path, serde_json::to_vec(&manifest).map_err(Error::internal)?).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(READ_ONLY)).map_err(failed)?;
        let home = self.home(name);
        self.remove(name)?;
        fs::rename(making, &home).map_err(failed)?;
        let disks = [stamped(&home, DISKS[0])?, stamped(&home, DISKS[1])?];
        let Parts { console, origin, ram, devices, .. } = parts;
        Ok(Frozen { name: name.to_owned(), origin, console, ram, devices, disks })
    }

    /// A template, read and checked whole; `None` where there is none of this key.
    pub(crate) fn load(&self, key: &Key) -> Result<Option<Frozen>> {
        let name = key.name();
        let home = self.home(&name);
        if !home.exists() {
            return Ok(None);
        }
        let manifest = self.manifest(&name)?;
        if manifest.key != *key {
            return Err(damaged("it is another's"));
        }
        let read = |file: &str, expected: &Contents| {
            let memory = memory::fresh(0).map_err(Error::internal)?;
            let found = memory::copy(&own(&home.join(file))?, &memory).map_err(damaged)?;
            if found != *expected {
                return Err(damaged(format!("{file} is not what was kept")));
            }
            memory::seal(&memory).map_err(Error::internal)?;
            Ok(memory)
        };
        let (ram, devices) = (read(RAM, &manifest.ram)?, read(DEVICES, &manifest.devices)?);
        let mut disks = Vec::new();
        for (file, expected) in DISKS.iter().zip(&manifest.disks) {
            // Stamped before it is read: what is written meanwhile has another one.
            let stamped = stamped(&home, file)?;
            if memory::contents(&own(&stamped.0)?).map_err(damaged)? != *expected {
                return Err(damaged(format!("{file} is not what was kept")));
            }
            disks.push(stamped);
        }
        let disks = disks.try_into().map_err(|_| damaged("a disk is missing"))?;
        Ok(Some(Frozen { name, origin: manifest.origin, console: manifest.console, ram, devices, disks }))
    }

    fn manifest(&self, name: &str) -> Result<Manifest> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut own(&self.home(name).join(MANIFEST))?, &mut text).map_err(damaged)?;
        serde_json::from_str(&text).map_err(damaged)
    }

    /// The template was used now.
    pub(crate) fn used(&self, name: &str) {
        // It only decides which goes first.
        drop(File::open(self.home(name)).and_then(|folder| folder.set_modified(SystemTime::now())));
    }

    /// Everything that is there, the least recently used first. What is damaged is removed.
    pub(crate) fn list(&self) -> Result<Vec<Row>> {
        let failed = |error: std::io::Error| Error::internal(format!("{}: {error}", self.folder.display()));
        let mut rows = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name == MAKING {
                continue;
            }
            match self.row(&name) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    tracing::warn!(name, %error, "no template, and removed");
                    self.remove(&name)?;
                }
            }
        }
        rows.sort_by_key(|row| row.used);
        Ok(rows)
    }

    fn row(&self, name: &str) -> Result<Row> {
        let home = self.home(name);
        let Manifest { key, image, kernel, .. } = self.manifest(name)?;
        if key.name() != name {
            return Err(damaged("it is another's"));
        }
        let mut bytes = 0;
        for file in [RAM, DEVICES, DISKS[0], DISKS[1]] {
            bytes += fs::symlink_metadata(home.join(file)).map_err(damaged)?.blocks() * 512;
        }
        let made = seconds(fs::metadata(home.join(MANIFEST)).and_then(|meta| meta.modified()));
        let used = seconds(fs::metadata(&home).and_then(|meta| meta.modified()));
        Ok(Row { name: name.to_owned(), key, image, kernel, bytes, made, used })
    }
}

/// A file of ours, and nobody else's.
fn own(path: &Path) -> Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(damaged)?;
    let meta = file.metadata().map_err(damaged)?;
    match meta.is_file() && meta.uid() == nix::unistd::geteuid().as_raw() {
        true => Ok(file),
        false => Err(damaged(format!("{} is not ours", path.display()))),
    }
}

fn stamped(home: &Path, file: &str) -> Result<(PathBuf, Stamp)> {
    let path = home.join(file);
    let stamp = Stamp::of(&own(&path)?).map_err(damaged)?;
    Ok((path, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::templates::key::some;
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    fn parts() -> Parts {
        let disk = |byte: u8| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(64 << 20).unwrap();
            file.write_all_at(&[byte; 10_000], 1 << 20).unwrap();
            file
        };
        let ram = memory::fresh(64 << 20).unwrap();
        ram.write_all_at(b"the guest", 32 << 20).unwrap();
        let devices = memory::fresh(0).unwrap();
        devices.write_all_at(b"its devices", 0).unwrap();
        let origin = Origin { tsc_khz: Some(7), processor: None };
        Parts {
            image: "i".into(),
            kernel: "k".into(),
            console: "said".into(),
            origin,
            ram,
            devices,
            disks: [disk(1), disk(2)],
        }
    }

    fn place() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("templates")).unwrap();
        (folder, store)
    }

    #[test]
    fn what_is_published_is_found_again_whole() {
        let (_folder, store) = place();
        let key = some();
        assert!(store.load(&key).unwrap().is_none());
        let published = store.publish(&key, parts()).unwrap();
        let loaded = store.load(&key).unwrap().unwrap();
        for frozen in [&published, &loaded, &loaded] {
            let [ram, devices] = frozen.guest().unwrap().map(File::from);
            let mut bytes = [0; 9];
            ram.read_exact_at(&mut bytes, 32 << 20).unwrap();
            assert_eq!(&bytes, b"the guest");
            let mut state = String::new();
            (&devices).read_to_string(&mut state).unwrap();
            assert_eq!(state, "its devices", "each reads from the beginning");
            let [system, work] = frozen.disks().unwrap().map(File::from);
            assert_eq!((system.metadata().unwrap().len(), work.metadata().unwrap().len()), (64 << 20, 64 << 20));
            assert!(ram.write_all_at(b"x", 0).is_err() && system.write_all_at(b"x", 0).is_err());
        }
        let rows = store.list().unwrap();
        assert_eq!((rows.len(), &rows[0].key), (1, &key));
        assert!(rows[0].bytes < 1 << 20, "sparse: {rows:?}");
        store.remove(&key.name()).unwrap();
        store.remove(&key.name()).unwrap();
        assert!(store.load(&key).unwrap().is_none() && store.list().unwrap().is_empty());
        // Who goes on from it keeps it; who begins anew does not.
        loaded.guest().unwrap();
        assert_eq!(loaded.disks().unwrap_err().kind, Kind::Corrupt);
    }

    #[test]
    fn a_byte_of_any_file_is_missed() {
        let key = some();
        for file in [RAM, DEVICES, DISKS[0], DISKS[1], MANIFEST] {
            let (_folder, store) = place();
            let frozen = store.publish(&key, parts()).unwrap();
            let path = store.home(&key.name()).join(file);
            let bytes = fs::read(&path).unwrap();
            let at = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let open = OpenOptions::new().write(true).open(&path).unwrap();
            open.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            assert_eq!(store.load(&key).unwrap_err().kind, Kind::Corrupt, "{file}");
            if DISKS.contains(&file) {
                assert_eq!(frozen.disks().unwrap_err().kind, Kind::Corrupt, "{file}: written after it was read");
            }
            open.write_all_at(&bytes[at..=at], at as u64).unwrap();
            assert!(store.load(&key).is_ok(), "{file}");
            open.set_len(bytes.len() as u64 - 1).unwrap();
            assert_eq!(store.load(&key).unwrap_err().kind, Kind::Corrupt, "{file} cut");
            fs::remove_file(&path).unwrap();
            assert_eq!(store.load(&key).unwrap_err().kind, Kind::Corrupt, "{file} gone");
        }
    }

    #[test]
    fn what_is_no_template_is_removed_when_it_is_listed() {
        let (folder, store) = place();
        store.publish(&some(), parts()).unwrap();
        let strange = |name: &str| folder.path().join("templates").join(name);
        fs::create_dir(strange("empty")).unwrap();
        fs::write(strange("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", strange("link")).unwrap();
        fs::rename(strange(&some().name()), strange("renamed")).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path().join("templates")).unwrap().count(), 1, "only what is being made");
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_link_to_a_file_is_none_and_what_was_half_made_is_gone_at_the_next_start() {
        let (folder, store) = place();
        let key = some();
        store.publish(&key, parts()).unwrap();
        let ram = store.home(&key.name()).join(RAM);
        fs::rename(&ram, folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &ram).unwrap();
        assert_eq!(store.load(&key).unwrap_err().kind, Kind::Corrupt);
        fs::write(store.home(MAKING).join("half"), "x").unwrap();
        let store = Store::open(folder.path().join("templates")).unwrap();
        assert!(!store.home(MAKING).exists());
        store.publish(&key, parts()).unwrap();
        assert!(store.load(&key).unwrap().is_some(), "made anew in the place of a damaged one");
    }

    #[test]
    fn memory_that_somebody_can_still_write_is_no_template() {
        let (_folder, store) = place();
        let parts = parts();
        let mapped = mapping(&parts.ram);
        assert!(store.publish(&some(), parts).is_err());
        assert!(store.list().unwrap().is_empty());
        drop(mapped);
    }

    /// A process that has the memory mapped for writing, as a VMM has that still runs.
    fn mapping(ram: &File) -> Child {
        use std::io::{BufRead, BufReader};
        let script = "import mmap, time; m = mmap.mmap(0, 4096); print('mapped', flush=True); time.sleep(60)";
        let mut child = std::process::Command::new("python3")
            .args(["-c", script])
            .stdin(std::process::Stdio::from(ram.try_clone().unwrap()))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mapped\n");
        Child(child)
    }

    struct Child(std::process::Child);

    impl Drop for Child {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}
