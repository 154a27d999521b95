//! The folder of one host: what it writes, and its console. It is locked while its host lives, so that whoever comes
//! next can tell the folders of runs that were killed, and removes them.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::{Who, catalog};

const LOCK: &str = "lock";

/// Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
    _held: Flock<File>,
}

/// Where the folders of all hosts are. Removed with its last one would be a race: it stays, empty.
pub fn hosts() -> PathBuf {
    catalog::folder(Who::Me).with_file_name("hosts")
}

impl Folder {
    pub(super) fn new() -> Self {
        let hosts = hosts();
        std::fs::create_dir_all(&hosts).unwrap();
        // Others' VMs will have their disks in it.
        std::fs::set_permissions(&hosts, Permissions::from_mode(0o700)).unwrap();
        let turn = lock(&hosts.with_extension("lock"), FlockArg::LockExclusive);
        let _turn = turn.expect("it is waited for");
        sweep(&hosts);
        let folder = tempfile::Builder::new().prefix("host-").tempdir_in(hosts).unwrap();
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        // The root of the host gets its mode from the upper one.
        std::fs::set_permissions(folder.path().join("upper"), Permissions::from_mode(0o755)).unwrap();
        let held = lock(&folder.path().join(LOCK), FlockArg::LockExclusiveNonblock).expect("it is new");
        Folder { folder, _held: held }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What the host said before and after it had a journal.
    pub(super) fn console(&self) -> PathBuf {
        self.path().join("console")
    }

    /// What the host has written to its root.
    pub(super) fn written(&self) -> PathBuf {
        self.path().join("upper")
    }
}

/// Removes the folders whose lock nobody holds. Their hosts died with the runs that booted them.
fn sweep(hosts: &Path) {
    for entry in std::fs::read_dir(hosts).unwrap().flatten() {
        if lock(&entry.path().join(LOCK), FlockArg::LockExclusiveNonblock).is_some() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

fn lock(path: &Path, how: FlockArg) -> Option<Flock<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    Flock::lock(file, how).ok()
}
