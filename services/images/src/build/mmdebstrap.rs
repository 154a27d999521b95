//! Running mmdebstrap, and other programs in the namespace where its files have their right owners: root's own, or
//! for an ordinary user one with a range of subordinate ids.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};

use super::error::{At, BuildError, Result};
use super::process;
use super::progress::{Cancel, Progress};

/// Fails, with what to install, unless packages can be unpacked with their owners by this user.
pub(super) fn require() -> Result<()> {
    process::require("mmdebstrap", "mmdebstrap")?;
    if geteuid().is_root() {
        return process::require("unshare", "util-linux");
    }
    process::require("newuidmap", "uidmap")?;
    let uid = geteuid();
    let user = User::from_uid(uid).when("the user database")?.map_or_else(|| uid.to_string(), |user| user.name);
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges = fs::read_to_string(file).unwrap_or_default();
        if !has_range(&ranges, &user, uid.as_raw()) {
            return Err(BuildError::NoSubordinateIds { user, file });
        }
    }
    Ok(())
}

/// subuid(5): `name-or-uid:first:count`. Debian uses ids up to 65534.
fn has_range(ranges: &str, user: &str, uid: u32) -> bool {
    ranges.lines().any(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.parse::<u32>().ok());
        (owner == user || owner == uid.to_string()) && count.is_some_and(|count| count >= 65_536)
    })
}

/// A run of mmdebstrap, begun with what every run needs.
#[derive(Debug)]
pub(super) struct Bootstrap {
    command: Command,
}

impl Bootstrap {
    /// `format` is `tar` or `directory`; temporary files go to `scratch`.
    pub(super) fn new(variant: &str, format: &str, packages: &[&str], epoch: u64, scratch: &Path) -> Self {
        let mut command = if geteuid().is_root() {
            // mmdebstrap mounts; killed, it would leave mounts and processes behind. In namespaces of its own both
            // end with it.
            let mut unshare = program("unshare");
            unshare.args(["--mount", "--pid", "--mount-proc", "--kill-child", "mmdebstrap", "--mode=root"]);
            unshare
        } else {
            let mut command = program("mmdebstrap");
            command.arg("--mode=unshare");
            command
        };
        command.arg(format!("--variant={variant}")).arg(format!("--format={format}"));
        // One option each, as apt's patterns can only stand alone.
        command.args(packages.iter().map(|package| format!("--include={package}")));
        command.arg("--aptopt=APT::Install-Recommends \"false\"");
        command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("TMPDIR", scratch);
        Bootstrap { command }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// The whole command: from `mirrors`, or Debian's own where none is given, to `target`.
    pub(super) fn into_command(mut self, suite: &str, target: &Path, mirrors: &[String]) -> Command {
        self.command.arg("--").arg(suite).arg(target).args(mirrors);
        self.command
    }
}

/// A run of `name` where it sees the files of a tree with the owners that they will have in the guest.
pub(super) fn inside(name: &str) -> Command {
    if geteuid().is_root() {
        return program(name);
    }
    let mut command = program("mmdebstrap");
    command.args(["--unshare-helper", name]);
    command
}

/// Empties the folders anywhere in `path` that belong to subordinate ids; their owners alone may do that.
pub(super) fn empty_foreign(path: &Path) -> Result<()> {
    let me = geteuid().as_raw();
    for entry in fs::read_dir(path).at(path)? {
        let entry = entry.at(path)?;
        // Of the entry itself, not of what it may point to.
        let found = entry.metadata().at(&entry.path())?;
        if !found.is_dir() {
            continue;
        }
        if found.uid() == me {
            empty_foreign(&entry.path())?;
            continue;
        }
        let mut find = inside("find");
        find.arg(entry.path()).args(["-xdev", "-mindepth", "1", "-delete"]);
        process::run("find", find, &Cancel::default(), &mut |_| ())?;
    }
    Ok(())
}

/// Shows what mmdebstrap is doing from what it says.
pub(super) fn stages(progress: &dyn Progress) -> impl FnMut(&str) {
    |line| {
        if let Some(stage) = stage(line) {
            progress.stage(stage);
        }
    }
}

/// The stage that a message announces: `I: extracting archives...`. Hooks and temporary paths are nobody's concern.
fn stage(line: &str) -> Option<&str> {
    let stage = line.strip_prefix("I: ")?.strip_suffix("...")?;
    let dull = ["running --", "removing tempdir", "finding correct signed-by"];
    (!dull.iter().any(|start| stage.starts_with(start))).then_some(stage)
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    // The current folder may be closed to the ids of the namespace.
    command.current_dir("/").stdin(Stdio::null()).env("PATH", process::search_path()).env("LC_ALL", "C.UTF-8");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_when_it_is_ours_and_large_enough() {
        assert!(has_range("other:100000:65536\nme:165536:65536\n", "me", 1000));
        assert!(has_range("1000:165536:65536", "me", 1000));
        assert!(!has_range("me2:165536:65536\nme:1:100\nme\n:\n", "me", 1000));
        assert!(!has_range("", "me", 1000));
    }

    #[test]
    fn stages_are_what_a_person_wants_to_know() {
        assert_eq!(stage("I: downloading packages with apt..."), Some("downloading packages with apt"));
        for line in [
            "I: success in 5.7602 seconds",
            "I: removing tempdir /var/tmp/mmdebstrap.x...",
            "W: something...",
            "I: running --customize-hook in shell: sh -c 'x'...",
            "Unpacking libc6",
        ] {
            assert_eq!(stage(line), None);
        }
    }
}
