//! What one host has on the machine: a folder with what it writes and its console, and a control group of the same
//! name. The folder is locked while its host lives, so that whoever comes next can tell those of runs that were
//! killed, and removes them.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{cgroup, evidence};
use crate::{Who, catalog};

const LOCK: &str = "lock";
const TEST: &str = "test";

/// Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Folder {
    place: Place,
    groups: Vec<PathBuf>,
    _held: Flock<File>,
}

/// What lies where in a host's folder.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What the host said before and after it had a journal.
    pub(super) fn console(&self) -> PathBuf {
        self.0.join("console")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.0.join("upper/var/log/journal")
    }

    /// The test that it was booted for.
    pub(super) fn test(&self) -> String {
        std::fs::read_to_string(self.0.join(TEST)).unwrap_or_else(|_| self.name())
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn remove(&self) {
        cgroup::remove(&self.name());
        std::fs::remove_dir_all(&self.0).unwrap();
    }
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
        let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
        std::fs::write(path.join(TEST), test).unwrap();
        let held = lock(&path.join(LOCK), FlockArg::LockExclusiveNonblock).expect("it is new");
        let place = Place(path);
        let groups = cgroup::make(&place.name());
        Folder { place, groups, _held: held }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The control groups that it is to run in.
    pub(super) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _turn = turn(self.place.path().parent().unwrap());
        self.place.remove();
    }
}

/// Folders come and go one at a time: one without a lock is no half-made one then.
fn turn(hosts: &Path) -> Flock<File> {
    lock(&hosts.with_extension("lock"), FlockArg::LockExclusive).expect("it is waited for")
}

/// Removes the folders whose lock nobody holds. Their hosts died with the runs that booted them, by a time limit most
/// often.
fn sweep(hosts: &Path) {
    for entry in std::fs::read_dir(hosts).unwrap().flatten() {
        if lock(&entry.path().join(LOCK), FlockArg::LockExclusiveNonblock).is_some() {
            let place = Place(entry.path());
            println!("a run was killed: journal and console of its host are in {}", evidence::keep(&place).display());
            place.remove();
        }
    }
}

fn lock(path: &Path, how: FlockArg) -> Option<Flock<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    Flock::lock(file, how).ok()
}
