//! `banger system restart`.

use std::path::Path;

use super::host;
use super::manifest::Manifest;
use crate::error::Failure;

pub(crate) fn run() -> Result<(), Failure> {
    host::require_root()?;
    host::require_systemd()?;
    installed()?;
    host::restart()
}

/// What is installed here; nothing is an error that says so.
pub(super) fn installed() -> Result<Manifest, Failure> {
    Manifest::read(Path::new("/"))?.ok_or_else(|| {
        Failure::new("banger is not installed as services of this host").hint("sudo banger system install")
    })
}
