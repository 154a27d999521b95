//! Keeps systemd from waiting for what a microVM does not have, and from what the agent has done already.
//!
//! Masks are links to `/dev/null` below `/run`, so that the image stays as it is and its owner can still override
//! them in `/etc` (systemd.unit(5), "Unit File Load Path").

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Each of these waits for a device, a network or a disk that never comes, or does what the host answers for.
const STALLS: &[&str] = &[
    // No udev and no console of ours: device units never appear.
    "getty@.service",
    "autovt@.service",
    "serial-getty@.service",
    "console-getty.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-varlink.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-hwdb-update.service",
    // The address is the host's to give.
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-network-generator.service",
    "NetworkManager.service",
    "NetworkManager-wait-online.service",
    "networking.service",
    "ifupdown-pre.service",
    "ifupdown-wait-online.service",
    "dhcpcd.service",
    "cloud-init-local.service",
    "cloud-init-main.service",
    "cloud-init.service",
    "cloud-init-network.service",
    "cloud-config.service",
    "cloud-final.service",
    "systemd-time-wait-sync.service",
    // The root is mounted, the identity is taken, the modules are loaded, the seed is credited.
    "systemd-remount-fs.service",
    "systemd-fsck-root.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-random-seed.service",
    "systemd-boot-random-seed.service",
    "systemd-modules-load.service",
    "systemd-repart.service",
    "systemd-growfs-root.service",
    "kmod-static-nodes.service",
    "modprobe@.service",
];

/// Work of hosts that live for years; here it only takes the time of the first command.
const CHORES: &[&str] = &[
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-done.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "systemd-pstore.service",
    "systemd-sysusers.service",
    "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrmachine.service",
    "systemd-initctl.socket",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
];

/// Started by who needs them, through the bus and its socket, and by the boot for nobody.
const UNASKED: &[&str] = &["dbus.service", "systemd-logind.service"];

/// Those that make units for disks and consoles which the VM lacks, or that open doors of their own.
const GENERATORS: &[&str] = &[
    "systemd-bless-boot-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-import-generator",
    "systemd-integritysetup-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
    "cloud-init-generator",
    "netplan",
];

/// Writes the masks; systemd keeps the `/run` that it finds mounted.
pub(super) fn write() -> io::Result<()> {
    write_below(Path::new("/run/systemd"))
}

fn write_below(folder: &Path) -> io::Result<()> {
    let kinds = [
        ("system", STALLS),
        ("system", CHORES),
        ("system/multi-user.target.wants", UNASKED),
        ("system-generators", GENERATORS),
    ];
    for (kind, names) in kinds {
        let folder = folder.join(kind);
        fs::create_dir_all(&folder)?;
        for name in names {
            match symlink("/dev/null", folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_twice_is_masking_once_and_every_mask_is_a_link_to_nothing() {
        let run = tempfile::tempdir().unwrap();
        write_below(run.path()).unwrap();
        write_below(run.path()).unwrap();
        let mask = fs::read_link(run.path().join("system/serial-getty@.service")).unwrap();
        assert_eq!(mask, Path::new("/dev/null"));
        let generators = fs::read_dir(run.path().join("system-generators")).unwrap().count();
        assert_eq!(generators, GENERATORS.len());
    }
}
