//! The root that hosts are booted from: Debian's packages and a few people. Made once a machine, kept outside the
//! tree, never written to.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::{Who, catalog};

const RELEASE: &str = "bookworm";

/// Both buses are in it, and what banger and its tests run.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "libpam-systemd",
    "libnss-systemd",
    "dbus",
    "dbus-broker",
    "dbus-user-session",
    "polkitd",
    "pkexec",
    "login",
    "passwd",
    "procps",
    "kmod",
    "iproute2",
    "nftables",
    "iptables",
    "qemu-system-x86",
    "mmdebstrap",
    "uidmap",
    "slirp4netns",
    "erofs-utils",
    "e2fsprogs",
    "git",
    "ca-certificates",
    "curl",
    "dnsutils",
    "strace",
    "expect",
    "python3-minimal",
];

/// Without documentation: a third of the files.
const WITHOUT: [&str; 4] = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// Everybody's password is their name. Without a machine id the first boot would be a degraded one. What wakes up at
/// night or waits for a terminal has no place in a test; journals are kept on the disk, for the post-mortem.
const SETTLE: &str = r#"
systemd-machine-id-setup
for user in alice bob carol dave; do
    useradd --create-home --shell /bin/bash "$user"
    echo "$user:$user"
done | chpasswd
usermod --append --groups sudo dave
getent group kvm >/dev/null || groupadd --system kvm
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service systemd-pstore.service console-getty.service getty@tty1.service
mkdir -p /var/log/journal /mnt/dist
echo host >/etc/hostname
echo '127.0.1.1 host' >>/etc/hosts
"#;

/// The root, made if it is not there. Tests that start together wait for one.
pub(super) fn base() -> PathBuf {
    let path = catalog::folder(Who::Me).with_file_name(format!("host-{:016x}", key()));
    let lock = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock")).unwrap();
    let _turn = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    if !path.exists() {
        let half = path.with_extension("half");
        if half.exists() {
            std::fs::remove_dir_all(&half).unwrap();
        }
        make(&half);
        std::fs::rename(&half, &path).unwrap();
    }
    path
}

/// Another recipe, another root.
fn key() -> u64 {
    let mut hasher = DefaultHasher::new();
    (RELEASE, PACKAGES, WITHOUT, SETTLE).hash(&mut hasher);
    hasher.finish()
}

fn make(root: &Path) {
    // It mounts; killed, it would leave mounts and processes behind. In namespaces of its own both end with it.
    let mut bootstrap = Command::new("unshare");
    bootstrap.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap", "--mode=root"]);
    bootstrap.args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""]);
    bootstrap.args(WITHOUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    bootstrap.arg(format!("--include={}", PACKAGES.join(","))).arg(RELEASE).arg(root);
    succeed(bootstrap);
    let mut settle = Command::new("chroot");
    settle.arg(root).args(["sh", "-ec", SETTLE]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    succeed(settle);
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: 'make packages' installs it"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
