//! What one host has on the machine: a folder with what it writes and its console, and a control group of the same
//! name. The folder is locked while its host lives, so that whoever comes next can tell those of runs that were
//! killed, and removes them.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::cgroup;
use crate::{Who, catalog};

const LOCK: &str = "lock";

/// Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    groups: Vec<PathBuf>,
    _held: Flock<File>,
}

impl Folder {
    pub(super) fn new() -> Self {
        let hosts = catalog::folder(Who::Me).with_file_name("hosts");
        std::fs::create_dir_all(&hosts).unwrap();
        // Others' VMs will have their disks in it.
        std::fs::set_permissions(&hosts, Permissions::from_mode(0o700)).unwrap();
        let _turn = turn(&hosts);
        sweep(&hosts);
        let path = tempfile::Builder::new().prefix("banger-host-").tempdir_in(hosts).unwrap().keep();
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        // The root of the host gets its mode from the upper one.
        std::fs::set_permissions(path.join("upper"), Permissions::from_mode(0o755)).unwrap();
        let held = lock(&path.join(LOCK), FlockArg::LockExclusiveNonblock).expect("it is new");
        let groups = cgroup::make(&name(&path));
        Folder { path, groups, _held: held }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The control groups that it is to run in.
    pub(super) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }

    /// What the host said before and after it had a journal.
    pub(super) fn console(&self) -> PathBuf {
        self.path.join("console")
    }

    /// What the host has written to its root.
    pub(super) fn written(&self) -> PathBuf {
        self.path.join("upper")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _turn = turn(self.path.parent().unwrap());
        remove(&self.path);
    }
}

/// Folders come and go one at a time: one without a lock is no half-made one then.
fn turn(hosts: &Path) -> Flock<File> {
    lock(&hosts.with_extension("lock"), FlockArg::LockExclusive).expect("it is waited for")
}

/// Removes the folders whose lock nobody holds. Their hosts died with the runs that booted them.
fn sweep(hosts: &Path) {
    for entry in std::fs::read_dir(hosts).unwrap().flatten() {
        if lock(&entry.path().join(LOCK), FlockArg::LockExclusiveNonblock).is_some() {
            remove(&entry.path());
        }
    }
}

fn remove(folder: &Path) {
    cgroup::remove(&name(folder));
    std::fs::remove_dir_all(folder).unwrap();
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

fn lock(path: &Path, how: FlockArg) -> Option<Flock<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    Flock::lock(file, how).ok()
}
