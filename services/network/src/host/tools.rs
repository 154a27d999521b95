//! Where the host's programs are. An ordinary user's `PATH` often lacks the folders of `nft`.

use std::env;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

const ALSO: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The first program of this name in `PATH`, then in the administrator's folders.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(ALSO.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| runnable(file))
}

/// Whether it is a file that we may run.
pub fn runnable(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}
