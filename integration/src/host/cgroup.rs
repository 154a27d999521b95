//! A control group for each host. systemd takes the one that it is started in for its own from the root on: two hosts
//! in one would stop each other's services.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::eventually;

/// Makes the group of this name in each hierarchy that systemd uses: the unified one, and on older machines its own.
pub(super) fn make(name: &str) -> Vec<PathBuf> {
    let groups = all(name);
    for group in &groups {
        std::fs::create_dir(group).unwrap_or_else(|e| panic!("{}: {e}", group.display()));
    }
    groups
}

/// Removes the groups of this name, whose processes have ended or are about to.
pub(super) fn remove(name: &str) {
    for group in all(name) {
        eventually(&format!("{} is empty", group.display()), || prune(&group));
    }
}

/// Removes a group with those below it; whether it is gone.
fn prune(group: &Path) -> bool {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        prune(&entry.path());
    }
    match std::fs::remove_dir(group) {
        Ok(()) => true,
        Err(e) => e.kind() == ErrorKind::NotFound,
    }
}

fn all(name: &str) -> Vec<PathBuf> {
    let read = |file| std::fs::read_to_string(Path::new("/proc/self").join(file)).unwrap();
    let own = own(&read("mountinfo"), &read("cgroup"));
    assert!(!own.is_empty(), "a host needs cgroups of version 2 to be mounted");
    own.into_iter().map(|group| group.join(name)).collect()
}

/// This process's groups, from its mounts and from its memberships (cgroups(7)).
fn own(mounts: &str, memberships: &str) -> Vec<PathBuf> {
    let member = |hierarchy: &str| {
        let path =
            memberships.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(hierarchy)?.strip_prefix(':'));
        path.map(|path| path.trim_start_matches('/'))
    };
    let group = |mount: &str| {
        let (place, kind) = mount.split_once(" - ")?;
        let hierarchy = match kind.split_once(' ')? {
            ("cgroup2", _) => "",
            ("cgroup", options) if options.contains("name=systemd") => "name=systemd",
            _ => return None,
        };
        Some(Path::new(place.split(' ').nth(4)?).join(member(hierarchy)?))
    };
    mounts.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_today_has_one_hierarchy() {
        let mounts = "25 18 0:23 / /sys rw shared:7 - sysfs sysfs rw\n\
                      35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(own(mounts, "0::/user.slice/a.scope\n"), [Path::new("/sys/fs/cgroup/user.slice/a.scope")]);
    }

    #[test]
    fn an_older_one_has_systemds_own_beside_it() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let memberships = "9:name=systemd:/a\n3:cpu:/b\n0::/\n";
        assert_eq!(
            own(mounts, memberships),
            [Path::new("/sys/fs/cgroup/systemd/a"), Path::new("/sys/fs/cgroup/unified")]
        );
    }
}
