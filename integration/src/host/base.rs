//! What hosts are booted from: a root for containers, a disk for machines of their own. Debian's packages and a few
//! people. Made once a machine, kept outside the tree, never written to.

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

/// Nothing is lost with it: what is half made is made anew. Without documentation: a third of the files.
const DPKG: [&str; 5] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
];

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

/// What a machine of its own needs more than a container.
const MACHINE_PACKAGES: &[&str] = &["linux-image-amd64", "udev", "lz4", "openssh-server"];

/// Only what the disk needs is in the initramfs: an emulated machine reads slowly.
const SETTLE_MACHINE: &str = r#"
systemctl mask serial-getty@ttyS0.service
rm /etc/systemd/system/dbus.service
printf '%s\n' MODULES=list COMPRESS=lz4 >/etc/initramfs-tools/conf.d/small
printf '%s\n' virtio_pci virtio_blk ext4 >>/etc/initramfs-tools/modules
update-initramfs -u -k all
echo '/dev/vdb /mnt/dist erofs ro,nofail 0 0' >/etc/fstab
printf '%s\n' '[Match]' Name=eth0 '[Network]' Address=10.0.2.15/24 Gateway=10.0.2.2 >/etc/systemd/network/eth0.network
systemctl enable systemd-networkd
systemctl disable systemd-networkd-wait-online
"#;

/// Makes a disk of a root, `$0`, and puts beside it what it is started with.
const PACK: &str = r#"
files=$0.files
mv "$0" "$files" && mkdir "$0" && cd "$0"
ssh-keygen -q -t ed25519 -N '' -f key
install -D --mode=0600 key.pub "$files/root/.ssh/authorized_keys"
mv "$files"/boot/vmlinuz-* kernel && mv "$files"/boot/initrd.img-* initrd
mke2fs -q -t ext4 -d "$files" disk 6G
rm -rf "$files"
"#;

/// Others' firewalls. None of them runs until a test starts it.
const FIREWALL_PACKAGES: &[&str] = &["ufw", "firewalld", "docker.io"];

const SETTLE_FIREWALLS: &str = r#"
systemctl disable ufw.service firewalld.service docker.service docker.socket containerd.service
"#;

/// The root for containers.
pub(super) fn container() -> PathBuf {
    made("host", "", &[], "")
}

/// The same with others' firewalls.
pub(super) fn container_with_firewalls() -> PathBuf {
    made("firewalls", "", FIREWALL_PACKAGES, SETTLE_FIREWALLS)
}

/// What a machine of its own is started with.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn image(&self) -> PathBuf {
        self.0.join("disk")
    }

    pub(super) fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }

    pub(super) fn initrd(&self) -> PathBuf {
        self.0.join("initrd")
    }

    /// Opens it to root's ssh.
    pub(super) fn key(&self) -> PathBuf {
        self.0.join("key")
    }
}

/// The disk for machines of their own.
pub(super) fn machine() -> Disk {
    Disk(made("machine", PACK, MACHINE_PACKAGES, SETTLE_MACHINE))
}

/// What is made by this recipe, made if it is not there. Tests that start together wait for one.
fn made(kind: &str, pack: &str, more: &[&str], settle: &str) -> PathBuf {
    let packages = [PACKAGES, more].concat().join(",");
    let settle = format!("{SETTLE}{settle}");
    let mut key = DefaultHasher::new();
    (RELEASE, DPKG, &packages, &settle, pack).hash(&mut key);
    let path = catalog::folder(Who::Me).with_file_name(format!("{kind}-{:016x}", key.finish()));
    let lock = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock")).unwrap();
    let _turn = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    if !path.exists() {
        let half = path.with_extension("half");
        for left in [&half, &half.with_extension("half.files")] {
            if left.exists() {
                std::fs::remove_dir_all(left).unwrap();
            }
        }
        make(&half, &packages, &settle);
        succeed(Command::new("sh").args(["-ec", pack]).arg(&half));
        std::fs::rename(&half, &path).unwrap();
    }
    path
}

fn make(root: &Path, packages: &str, settle: &str) {
    let mut bootstrap = Command::new("unshare");
    // It mounts; killed, it would leave mounts and processes behind. In namespaces of its own both end with it.
    bootstrap.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap", "--mode=root"]);
    bootstrap.args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""]);
    bootstrap.args(DPKG.map(|option| format!("--dpkgopt={option}")));
    succeed(bootstrap.arg(format!("--include={packages}")).arg(RELEASE).arg(root));
    let mut chroot = Command::new("chroot");
    chroot.arg(root).args(["sh", "-ec", settle]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    succeed(&mut chroot);
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: 'make packages' installs it"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
