//! Files are exchanged all or none: written beside their places, then renamed into them, while what was there is kept
//! until all is well. Knows nothing of what the files are.

mod disk;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use disk::{Disk, Real};

use super::manifest::{Entry, below};
use super::plan::{Planned, above};
use crate::error::Failure;

/// What will be, and what goes.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) files: Vec<(Planned, Entry)>,
    pub(crate) gone: Vec<PathBuf>,
    /// Removed at the end where nothing is in them, the innermost first.
    pub(crate) gone_folders: Vec<PathBuf>,
}

/// Files that have been exchanged and can still be exchanged back.
#[derive(Debug)]
#[must_use = "keep it or undo it"]
pub(crate) struct Exchange<'a, D> {
    disk: &'a D,
    root: &'a Path,
    done: Vec<Done>,
    gone_folders: Vec<PathBuf>,
}

/// A step that was done.
#[derive(Debug)]
enum Done {
    MadeFolder(PathBuf),
    Wrote(PathBuf),
    /// Nothing was there before.
    Placed(PathBuf),
    /// What was there is `former` now.
    Moved {
        target: PathBuf,
        former: PathBuf,
    },
}

/// What the names of our temporary files end with. None of the folders' readers takes such a file for one of its own.
const NEW: &str = ".banger-new";
const FORMER: &str = ".banger-old";

/// Exchanges all files, or none: a failure puts everything back as it was.
pub(crate) fn exchange<'a, D: Disk>(disk: &'a D, root: &'a Path, wanted: Wanted) -> Result<Exchange<'a, D>, Failure> {
    let mut exchange = Exchange { disk, root, done: Vec::new(), gone_folders: Vec::new() };
    match exchange.perform(&wanted) {
        Ok(()) => Ok(Exchange { gone_folders: wanted.gone_folders, ..exchange }),
        Err(failure) => Err(exchange.undo(failure)),
    }
}

/// The folders that the files need and that are not there, the innermost first.
pub(crate) fn missing_folders<'a>(root: &Path, targets: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let missing: BTreeSet<&Path> = targets.flat_map(above).filter(|folder| !below(root, folder).exists()).collect();
    missing.into_iter().rev().map(Path::to_owned).collect()
}

impl<D: Disk> Exchange<'_, D> {
    fn perform(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let targets = wanted.files.iter().map(|(file, _)| file.target.as_path());
        let folders: BTreeSet<PathBuf> = targets
            .chain(wanted.gone.iter().map(PathBuf::as_path))
            .filter_map(|target| Some(below(self.root, target.parent()?)))
            .collect();
        folders.iter().try_for_each(|folder| self.sweep(folder).map_err(|e| failed("clean up in", folder, &e)))?;
        let mut written = Vec::new();
        for (file, entry) in &wanted.files {
            let target = below(self.root, &file.target);
            if Entry::on_disk(&target).map_err(|e| failed("read", &target, &e))?.as_ref() != Some(entry) {
                written.push((self.write(file, entry, &target)?, target));
            }
        }
        for (new, target) in written {
            self.place(&new, target.clone()).map_err(|e| failed("replace", &target, &e))?;
        }
        for target in wanted.gone.iter().map(|path| below(self.root, path)).filter(|target| is_there(target)) {
            self.take_away(target.clone()).map_err(|e| failed("remove", &target, &e))?;
        }
        let mut here = folders.iter().filter(|folder| folder.exists());
        here.try_for_each(|folder| self.disk.sync(folder).map_err(|e| failed("sync", folder, &e)))
    }

    /// Removes what an exchange that was killed has left.
    fn sweep(&self, folder: &Path) -> io::Result<()> {
        let entries = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(b".") && (name.ends_with(NEW.as_bytes()) || name.ends_with(FORMER.as_bytes())) {
                use std::os::unix::ffi::OsStrExt;
                self.disk.remove(&folder.join(std::ffi::OsStr::from_bytes(name)))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &Planned, entry: &Entry, target: &Path) -> Result<PathBuf, Failure> {
        for folder in missing_folders(self.root, std::iter::once(file.target.as_path())).iter().rev() {
            let folder = below(self.root, folder);
            self.disk.make_folder(&folder).map_err(|e| failed("make", &folder, &e))?;
            self.done.push(Done::MadeFolder(folder));
        }
        let new = beside(target, NEW);
        // Before it is there: a write that fails half-way leaves a file as well.
        self.done.push(Done::Wrote(new.clone()));
        self.disk.write(&new, file).map_err(|e| failed("write", target, &e))?;
        match Entry::on_disk(&new) {
            Ok(Some(written)) if written == *entry => Ok(new),
            Ok(_) => Err(Failure::new(format!("{} changed while it was being installed", target.display()))
                .hint("try again when the build has ended")),
            Err(e) => Err(failed("read", &new, &e)),
        }
    }

    fn place(&mut self, new: &Path, target: PathBuf) -> io::Result<()> {
        if !is_there(&target) {
            self.disk.rename(new, &target)?;
            self.done.push(Done::Placed(target));
            return Ok(());
        }
        // A second name for what is there: the place itself is never empty.
        let former = beside(&target, FORMER);
        self.disk.link(&target, &former)?;
        self.done.push(Done::Moved { target: target.clone(), former });
        self.disk.rename(new, &target)
    }

    fn take_away(&mut self, target: PathBuf) -> io::Result<()> {
        let former = beside(&target, FORMER);
        self.disk.rename(&target, &former)?;
        self.done.push(Done::Moved { target, former });
        Ok(())
    }

    /// Puts everything back as it was before; says what could not be.
    pub(crate) fn undo(self, because: Failure) -> Failure {
        let undone: Vec<String> = self
            .done
            .iter()
            .rev()
            .filter_map(|done| {
                let (path, outcome) = match done {
                    Done::MadeFolder(path) => (path, self.disk.remove_folder(path)),
                    Done::Wrote(path) | Done::Placed(path) => (path, self.disk.remove(path)),
                    Done::Moved { target, former } => (target, self.put_back(target, former)),
                };
                outcome
                    .err()
                    .filter(|e| e.kind() != io::ErrorKind::NotFound)
                    .map(|e| format!("{}: {e}", path.display()))
            })
            .collect();
        if undone.is_empty() {
            return Failure { message: format!("{}; nothing was changed", because.message), ..because };
        }
        let hint = because.hint.clone().map(|hint| format!("{hint}; ")).unwrap_or_default();
        because.hint(format!("{hint}not everything could be put back as it was: {}", undone.join("; ")))
    }

    fn put_back(&self, target: &Path, former: &Path) -> io::Result<()> {
        self.disk.rename(former, target)?;
        // rename(2) does nothing where both are names of one file, which they are if the exchange stopped in between.
        match self.disk.remove(former) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Lets go of what was there before. What cannot be removed is told: the next exchange removes it.
    pub(crate) fn keep(self) -> Vec<String> {
        let former = self.done.iter().filter_map(|done| match done {
            Done::Moved { former, .. } => Some(former),
            _ => None,
        });
        let told = |path: &Path, e: io::Error| format!("cannot remove {}: {e}", path.display());
        let mut left: Vec<String> = former.filter_map(|f| self.disk.remove(f).err().map(|e| told(f, e))).collect();
        for folder in self.gone_folders.iter().map(|folder| below(self.root, folder)) {
            match self.disk.remove_folder(&folder) {
                // Somebody else has put something there.
                Err(e) if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound].contains(&e.kind()) => {}
                Err(e) => left.push(told(&folder, e)),
                Ok(()) => {}
            }
        }
        left
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(suffix);
    target.with_file_name(name)
}

fn failed(what: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {e}", path.display()))
}
