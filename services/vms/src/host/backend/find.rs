//! Where VMMs are installed.

use std::path::PathBuf;

use banger_bus::settings;

/// Looked at after `PATH`, which a service may have without these.
const PATHS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// A program by its name, its full path.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(PATHS.map(PathBuf::from));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Firecracker: the configured one, there or not, else the one that is installed.
pub(super) fn firecracker() -> Option<PathBuf> {
    settings::get().firecracker_bin.clone().or_else(|| program("firecracker"))
}
