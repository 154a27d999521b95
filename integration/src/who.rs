//! Who runs banger: root, or an ordinary user without sudo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The ordinary user that tests make, once a machine.
const USER: &str = "banger-test";

/// A user of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the tests.
    Me,
    /// An ordinary user; only root can become one.
    User,
}

impl Who {
    /// Everybody that this run can be. As an ordinary user that is one.
    pub fn all() -> Vec<Who> {
        if nix::unistd::geteuid().is_root() { vec![Who::Me, Who::User] } else { vec![Who::Me] }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Who::Me => format!("uid-{}", nix::unistd::geteuid()),
            Who::User => USER.to_owned(),
        }
    }

    /// A command that this user runs, with nothing of the environment but what banger needs.
    pub fn command(self, program: &Path) -> Command {
        self.command_behind(&[], program)
    }

    /// The same behind another program, which is started as whoever runs the tests.
    pub(crate) fn command_behind(self, entrance: &[String], program: &Path) -> Command {
        let setpriv = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--inh-caps=-all", "--"];
        let mut words: Vec<OsString> = entrance.iter().map(OsString::from).collect();
        if self == Who::User {
            words.extend(setpriv.map(OsString::from));
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", self.home());
        command
    }

    pub(crate) fn home(self) -> PathBuf {
        match self {
            Who::Me => std::env::var_os("HOME").map_or_else(|| "/".into(), PathBuf::from),
            Who::User => Path::new("/home").join(USER),
        }
    }

    /// Makes the user, and lets it open the TUN device as udev would.
    pub(crate) fn prepare(self) {
        if self == Who::Me {
            return;
        }
        if nix::unistd::User::from_name(USER).unwrap().is_none() {
            let made = Command::new("useradd").args(["--create-home", "--shell", "/bin/sh", USER]).output().unwrap();
            assert!(made.status.success(), "useradd: {}", String::from_utf8_lossy(&made.stderr));
        }
        let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        if !ranges.lines().any(|line| line.starts_with(&format!("{USER}:"))) {
            let range = ["--add-subuids", "300000-365535", "--add-subgids", "300000-365535", USER];
            assert!(Command::new("usermod").args(range).status().unwrap().success());
        }
        if let Ok(meta) = std::fs::metadata("/dev/net/tun") {
            use std::os::unix::fs::PermissionsExt;
            let mut mode = meta.permissions();
            mode.set_mode(0o666);
            std::fs::set_permissions("/dev/net/tun", mode).unwrap();
        }
    }

    /// Gives a folder to this user.
    pub(crate) fn own(self, path: &Path) {
        if self == Who::User {
            let user = nix::unistd::User::from_name(USER).unwrap().expect("the user was made");
            nix::unistd::chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }
}
