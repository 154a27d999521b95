//! What was installed: the record that status compares with and that uninstall goes by.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::{Content, Planned};
use crate::error::Failure;

/// Where it lies on a host.
pub(crate) const PATH: &str = "/var/lib/banger/install.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: String,
    pub(crate) commit: Option<String>,
    pub(crate) prefix: String,
    /// Whether the files are a package's: then they come and go with it.
    pub(crate) packaged: bool,
    pub(crate) files: BTreeMap<PathBuf, Entry>,
    /// Folders that were not there before, the innermost first.
    pub(crate) folders: Vec<PathBuf>,
}

/// A file as it is meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) mode: u32,
    pub(crate) sha256: String,
}

impl Manifest {
    /// The one of the host below `root`, if banger is installed there.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>, Failure> {
        let path = below(root, Path::new(PATH));
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| {
            Failure::new(format!("{} is damaged: {e}", path.display()))
                .hint(format!("remove it, and install again: sudo rm {}; sudo banger system install", path.display()))
        })
    }

    /// As a file of the plan.
    pub(crate) fn planned(&self) -> Result<Planned, Failure> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| Failure::new(e.to_string()))?;
        text.push(b'\n');
        Ok(Planned::data(PATH.into(), text))
    }

    pub(crate) fn name(&self) -> String {
        named(&self.version, self.commit.as_deref())
    }
}

/// A version as people are told it.
pub(crate) fn named(version: &str, commit: Option<&str>) -> String {
    commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"))
}

impl Entry {
    /// What a planned file will be.
    pub(crate) fn planned(file: &Planned) -> Result<Self, Failure> {
        let sha256 = match &file.content {
            Content::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Content::Copy(source) => File::open(source).and_then(digest).map_err(|e| {
                Failure::new(format!("cannot read {}: {e}", source.display()))
                    .hint("this installation or build is incomplete: 'make build' makes it whole")
            })?,
        };
        Ok(Entry { mode: file.mode, sha256 })
    }

    /// What a file on the disk is; nothing where it is no file of its own.
    pub(crate) fn on_disk(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => {
                Ok(Some(Entry { mode: meta.mode() & 0o7777, sha256: digest(File::open(path)?)? }))
            }
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn digest(mut file: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&piece[..n]),
        }
    }
}

/// A path of the host as it is found below `root`.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
