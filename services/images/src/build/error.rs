//! What can go wrong in a build. Each sentence says what to do about it where something can be done.

use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this folder.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

/// Why a build, a check or a publish did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program that the build runs is not installed.
    #[error("{program} is missing: install the Debian package {package}")]
    MissingProgram { program: &'static str, package: &'static str },
    /// An ordinary user builds in a user namespace, which needs a range of ids to give files their owners.
    #[error(
        "the user {user} has no range of ids in {file}: \
         usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    )]
    NoSubordinateIds { user: String, file: &'static str },
    /// No folder can hold the tree of files that an image is made from.
    #[error(
        "no folder for temporary files can be used by a build: {}; each parent needs the execute permission for others",
        list(.tried)
    )]
    NoWorkFolder { tried: Vec<PathBuf> },
    /// The disk is too full to begin.
    #[error("{} needs {} MiB of free disk and has {} MiB", path.display(), needed >> 20, free >> 20)]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    /// The caller took the request back.
    #[error("cancelled")]
    Cancelled,
    /// A program failed; `log` holds its last lines.
    #[error("{program} failed ({status}): {log}")]
    Failed { program: String, status: String, log: String },
    /// Bytes that are not what they should be.
    #[error("{what} is damaged: {why}")]
    Corrupt { what: String, why: String },
    /// Sound bytes of a kind that this version cannot use.
    #[error("{what} cannot be used: {why}")]
    Unsupported { what: String, why: String },
    /// The kernel package has neither the module nor lists it as built in.
    #[error("the kernel has no module {0}")]
    MissingModule(String),
    /// Modules that need each other cannot be loaded in any order.
    #[error("kernel modules need each other in a circle: {}", .0.join(" -> "))]
    ModuleCycle(Vec<String>),
    /// The system said no.
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    pub(crate) fn corrupt(what: impl Into<String>, why: impl ToString) -> Self {
        BuildError::Corrupt { what: what.into(), why: why.to_string() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl ToString) -> Self {
        BuildError::Unsupported { what: what.into(), why: why.to_string() }
    }
}

/// Gives an I/O error the path that it is about.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
    fn when(self, what: &str) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| BuildError::Io { what: path.display().to_string(), source: error.into() })
    }

    fn when(self, what: &str) -> Result<T> {
        self.map_err(|error| BuildError::Io { what: what.to_owned(), source: error.into() })
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
