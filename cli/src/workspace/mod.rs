//! A repo on its way into a machine: which files, and how they are packed.
//!
//! Only what git tracks, with the working tree's content: `.env` files and notes stay at home. Lists are separated
//! by NUL, names are bytes, and no path is followed out of the tree.

mod git;
mod pack;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use pack::write_tar;

use crate::error::Failure;

/// A repo and the files of it that go into the machine.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The top of the working tree.
    pub(crate) root: PathBuf,
    /// Paths below it, sorted.
    pub(crate) files: Vec<PathBuf>,
}

impl Workspace {
    /// Looks at the repo that `path` is in.
    pub(crate) fn open(path: &Path, include_untracked: bool) -> Result<Self, Failure> {
        let root = git::top(path)?;
        let files = git::files(&root, include_untracked)?;
        Ok(Workspace { root, files })
    }

    /// Where it lies in the guest.
    pub(crate) fn guest_path(&self) -> Vec<u8> {
        let name = self.root.file_name().map_or(b"workspace".as_slice(), |n| n.as_bytes());
        [b"/root/", name].concat()
    }

    /// The list as `--dry-run` prints it: a path a line, quoted where a name has what would break a line.
    pub(crate) fn listing(&self) -> String {
        let quoted = |path: &PathBuf| match path.to_str() {
            Some(text) if !text.chars().any(char::is_control) => format!("{text}\n"),
            _ => format!("{path:?}\n"),
        };
        self.files.iter().map(quoted).collect()
    }
}
