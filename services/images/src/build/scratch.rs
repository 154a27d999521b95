//! Folders that are gone when they are no longer needed, also when files in them belong to the ids of a user
//! namespace, and also after a crash.

use std::env;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::error::{At, BuildError, Result};
use super::mmdebstrap;

/// Folders of this name in a public place are ours if they belong to our user.
const PREFIX: &str = "banger-images-";

/// A folder that is removed with this value. It is locked as long as it is in use, so that what a crash left
/// behind can be told from what somebody works in.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    /// Taken when the folder is no longer ours to remove.
    lock: Option<File>,
}

impl Scratch {
    /// Makes a folder in `parent`. Others may pass through it, but not list it: what builds in it may run under
    /// other ids.
    pub(super) fn new_in(parent: &Path) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o711)).tempdir_in(parent).at(parent)?;
        // The umask may have taken what the builder gave.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).at(folder.path())?;
        let lock = File::open(folder.path()).at(folder.path())?;
        lock.try_lock().map_err(io::Error::from).at(folder.path())?;
        Ok(Scratch { path: folder.keep(), lock: Some(lock) })
    }

    /// Makes a folder for a tree of files: in `preferred` where that works, else in the public temporary folders.
    pub(super) fn for_tree(preferred: &Path) -> Result<Self> {
        let mut tried = vec![preferred.to_owned()];
        tried.extend(env::var_os("TMPDIR").map(PathBuf::from));
        // Not /tmp: it is in memory on many systems, and a tree may have gigabytes.
        tried.push("/var/tmp".into());
        match tried.iter().find(|folder| holds_trees(folder)) {
            Some(folder) => Scratch::new_in(folder),
            None => Err(BuildError::NoWorkFolder { tried }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it was made in.
    pub(super) fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Gives the folder up: it has been moved elsewhere and stays.
    pub(super) fn keep(mut self) {
        self.lock = None;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary folder could not be removed");
        }
    }
}

/// Whether a tree can be made under `folder`. For an ordinary user the files belong to other ids, whose processes
/// must get through every parent: a closed home folder stops them. apt takes no path with a quote in it.
fn holds_trees(folder: &Path) -> bool {
    let Ok(real) = folder.canonicalize() else { return false };
    let open = |folder: &Path| folder.metadata().is_ok_and(|found| found.mode() & 0o001 != 0);
    access(&real, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
        && real.to_str().is_some_and(|path| !path.contains('"'))
        && (nix::unistd::geteuid().is_root() || real.ancestors().all(open))
}

/// Removes the folder `path` with all that is in it, and never follows a link out of it.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() => {
            mmdebstrap::empty_foreign(path)?;
            fs::remove_dir_all(path).at(path)
        }
        Err(error) => Err(error).at(path),
    }
}

/// Removes what crashed builds of this user left in `folder`; says how many things.
pub(super) fn sweep(folder: &Path) -> Result<usize> {
    let me = nix::unistd::geteuid().as_raw();
    let mut removed = 0;
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == me);
        if !ours {
            continue;
        }
        let path = entry.path();
        let unused = File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok());
        if !unused {
            continue;
        }
        match remove_tree(&path) {
            Ok(()) => removed += 1,
            // A build whose service was killed may go on for a while; then it is for the next sweep.
            Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover could not be removed yet"),
        }
    }
    Ok(removed)
}

/// Removes what crashed builds left in the public temporary folders. Somebody else's trouble there is not ours.
pub(super) fn sweep_public() -> usize {
    let folders = env::var_os("TMPDIR").map(PathBuf::from).into_iter().chain(["/var/tmp".into()]);
    folders.filter_map(|folder| sweep(&folder).ok()).sum()
}

/// Fails unless each folder has the free disk that it needs; needs on one file system add up.
pub(super) fn require_room(needs: &[(&Path, u64)]) -> Result<()> {
    let mut systems: Vec<(u64, &Path, u64)> = Vec::new();
    for (folder, needed) in needs {
        let device = folder.metadata().at(folder)?.dev();
        match systems.iter_mut().find(|(known, ..)| *known == device) {
            Some((.., sum)) => *sum += needed,
            None => systems.push((device, folder, *needed)),
        }
    }
    for (_, folder, needed) in systems {
        let found = statvfs(folder).at(folder)?;
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        if free < needed {
            return Err(BuildError::NoRoom { path: folder.to_owned(), needed, free });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_goes_with_its_value_and_stays_when_given_up() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new_in(parent.path()).unwrap();
        fs::create_dir(scratch.path().join("deep")).unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let kept = Scratch::new_in(parent.path()).unwrap();
        kept.keep();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_sweep_takes_leftovers_and_nothing_in_use_or_foreign() {
        let parent = tempfile::tempdir().unwrap();
        let used = Scratch::new_in(parent.path()).unwrap();
        Scratch::new_in(parent.path()).unwrap().keep();
        fs::create_dir(parent.path().join("other")).unwrap();
        fs::write(parent.path().join("banger-images-file"), b"").unwrap();
        assert_eq!(sweep(parent.path()).unwrap(), 1);
        assert!(used.path().exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3);
    }

    #[test]
    fn needs_on_one_disk_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let found = statvfs(folder.path()).unwrap();
        let most = found.blocks_available() * found.fragment_size() / 3 * 2;
        require_room(&[(folder.path(), 4096)]).unwrap();
        let error = require_room(&[(folder.path(), most), (folder.path(), most)]).unwrap_err();
        assert!(matches!(error, BuildError::NoRoom { needed, .. } if needed == most * 2), "{error}");
    }

    #[test]
    fn a_tree_finds_another_place_when_the_preferred_one_cannot_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let quoted = folder.path().join("a\"b");
        fs::create_dir(&quoted).unwrap();
        let scratch = Scratch::for_tree(&quoted).unwrap();
        assert!(!scratch.path().starts_with(&quoted));
    }
}
