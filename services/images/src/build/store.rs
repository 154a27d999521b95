//! A folder of finished things, each in a folder named by its digest. A thing is made in a folder aside and appears
//! whole, by one rename, or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::error::{At, BuildError, Result};
use super::scratch::{self, Scratch};

const TMP: &str = "tmp";
const MANIFEST: &str = "manifest.json";
/// For us and the files' group, which on a host is that of the VMs: each opens once more what it was given.
pub(crate) const READ_ONLY: u32 = 0o440;
const MAX_MANIFEST: u64 = 1 << 20;

/// The folder of finished things.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A folder in which one thing is being made. Dropped, it is gone.
#[derive(Debug)]
pub struct Stage {
    scratch: Scratch,
}

impl Stage {
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Writes the description of what is being made beside it.
    pub fn describe<T: Serialize>(&self, manifest: &T) -> Result<()> {
        let path = self.path().join(MANIFEST);
        let text = serde_json::to_vec_pretty(manifest).at(&path)?;
        fs::write(&path, text).at(&path)
    }
}

impl Store {
    /// Opens the store in `root`, which is made where it is missing.
    pub fn open(root: &Path) -> Result<Self> {
        let tmp = root.join(TMP);
        fs::create_dir_all(&tmp).at(&tmp)?;
        // What builds in it may run under other ids, and must get through.
        fs::set_permissions(&tmp, Permissions::from_mode(0o711)).at(&tmp)?;
        Ok(Store { root: root.canonicalize().at(root)? })
    }

    /// Removes what interrupted work left behind, here and in the public temporary folders; says how many things.
    /// What somebody still works in stays.
    pub fn sweep(&self) -> Result<usize> {
        Ok(scratch::sweep(&self.root.join(TMP))? + scratch::sweep_public())
    }

    /// A new folder to make something in.
    pub fn stage(&self) -> Result<Stage> {
        Ok(Stage { scratch: Scratch::new_in(&self.root.join(TMP))? })
    }

    /// Makes what is in `stage` visible as `digest`, durably. Where that already is, only its description is renewed: it may
    /// have come about in another way.
    pub fn publish(&self, stage: Stage, digest: &Digest) -> Result<PathBuf> {
        for entry in fs::read_dir(stage.path()).at(stage.path())? {
            let path = entry.at(stage.path())?.path();
            fs::set_permissions(&path, Permissions::from_mode(READ_ONLY)).at(&path)?;
            File::open(&path).and_then(|file| file.sync_all()).at(&path)?;
        }
        sync_folder(stage.path())?;
        let place = self.root.join(digest.to_string());
        match fs::rename(stage.path(), &place) {
            Ok(()) => {
                stage.scratch.keep();
                sync_folder(&self.root)?;
                sync_folder(&self.root.join(TMP))?;
            }
            // rename(2): a folder takes the place of an empty one only.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                fs::rename(stage.path().join(MANIFEST), place.join(MANIFEST)).at(&place)?;
                sync_folder(&place)?;
            }
            Err(error) => return Err(error).at(&place),
        }
        Ok(place)
    }

    /// Where `digest` is, if it is there.
    pub fn find(&self, digest: &Digest) -> Option<PathBuf> {
        let place = self.root.join(digest.to_string());
        place.is_dir().then_some(place)
    }

    /// The description that was written for `digest`.
    pub fn manifest<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T> {
        let path = self.root.join(digest.to_string()).join(MANIFEST);
        let mut text = Vec::new();
        File::open(&path).and_then(|file| file.take(MAX_MANIFEST).read_to_end(&mut text)).at(&path)?;
        serde_json::from_slice(&text).map_err(|error| BuildError::corrupt(path.display().to_string(), error))
    }

    /// Everything that is there. Names that are no digests are somebody else's.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).at(&self.root)? {
            let name = entry.at(&self.root)?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes `digest`; it vanishes in one step. Open files of it live on. What is not there is no error.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        let place = self.root.join(digest.to_string());
        let grave = self.stage()?;
        match fs::rename(&place, grave.path()) {
            Ok(()) => sync_folder(&self.root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).at(&place),
        }
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn staged(store: &Store, text: &str) -> Stage {
        let stage = store.stage().unwrap();
        fs::write(stage.path().join("file"), text).unwrap();
        stage
    }

    #[test]
    fn a_thing_is_visible_once_published_and_never_before() {
        let (_folder, store) = store();
        let digest = Digest::of(b"one");
        let stage = staged(&store, "one");
        stage.describe(&"a manifest".to_owned()).unwrap();
        assert!(store.find(&digest).is_none() && store.list().unwrap().is_empty());
        let place = store.publish(stage, &digest).unwrap();
        assert_eq!(store.find(&digest), Some(place.clone()));
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "one");
        assert_eq!(store.manifest::<String>(&digest).unwrap(), "a manifest");
        assert_eq!(store.list().unwrap(), [digest]);
        assert_eq!(Store::open(&store.root).unwrap().sweep().unwrap(), 0);
        assert!(store.find(&digest).is_some());
    }

    #[test]
    fn publishing_again_renews_the_description_and_nothing_else() {
        let (_folder, store) = store();
        let digest = Digest::of(b"one");
        for text in ["one", "other"] {
            let stage = staged(&store, text);
            stage.describe(&text).unwrap();
            store.publish(stage, &digest).unwrap();
        }
        let place = store.find(&digest).unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "one");
        assert_eq!(store.manifest::<String>(&digest).unwrap(), "other");
        assert_eq!(fs::read_dir(store.root.join(TMP)).unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_leaves_is_swept_and_was_never_visible() {
        let (_folder, store) = store();
        staged(&store, "half").scratch.keep();
        let working = staged(&store, "half");
        assert!(store.list().unwrap().is_empty());
        store.sweep().unwrap();
        assert!(working.path().exists());
        assert_eq!(fs::read_dir(store.root.join(TMP)).unwrap().count(), 1);
        drop(working);
        assert_eq!(fs::read_dir(store.root.join(TMP)).unwrap().count(), 0);
    }

    #[test]
    fn a_removed_thing_is_gone_and_can_come_again() {
        let (_folder, store) = store();
        let digest = Digest::of(b"one");
        store.publish(staged(&store, "one"), &digest).unwrap();
        store.remove(&digest).unwrap();
        store.remove(&digest).unwrap();
        assert!(store.find(&digest).is_none());
        assert_eq!(fs::read_dir(store.root.join(TMP)).unwrap().count(), 0);
        store.publish(staged(&store, "one"), &digest).unwrap();
    }
}
