//! What can be built out of the box: each recipe is data, and names Debian packages by suite.

use std::fmt::Debug;

use super::Digest;

/// 2026-01-01. Files newer than this get this time, so that the same packages give the same bytes on any day.
const EPOCH: u64 = 1_767_225_600;

/// A kernel from a Debian package.
#[derive(Debug, Clone, Copy)]
pub struct KernelRecipe {
    pub name: &'static str,
    pub suite: &'static str,
    pub package: &'static str,
    /// Modules for the initramfs, by their names with underscores; what they need comes along. They are loaded in
    /// this order while the disks are mounted, so what is waited for first comes first.
    pub modules: &'static [&'static str],
    pub epoch: u64,
    /// Free disk needed while building.
    pub room: u64,
}

/// An image from Debian packages.
#[derive(Debug, Clone, Copy)]
pub struct ImageRecipe {
    pub name: &'static str,
    pub suite: &'static str,
    pub variant: &'static str,
    pub packages: &'static [&'static str],
    /// What a microVM has no use for, and costs time at every boot: files below `/etc` that are links to `/dev/null`, as
    /// systemd.unit(5), systemd.generator(7) and tmpfiles.d(5) have it.
    pub masked: &'static [&'static str],
    /// Services that wait for nobody at every boot, and the sockets that start them when somebody comes.
    pub started_by_socket: &'static [(&'static str, &'static str)],
    pub epoch: u64,
    /// Free disk needed for the tree of files while building, packages and lists included.
    pub tree_room: u64,
    /// Free disk needed for the image.
    pub image_room: u64,
}

/// What differs from host to host.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where packages come from: URLs, `deb` lines or files of sources, as mmdebstrap takes them. None means
    /// Debian's own mirrors with updates and security; they end up in the image's sources too.
    pub mirrors: Vec<String>,
}

/// The kernels that can be built.
pub const KERNELS: &[KernelRecipe] = &[KernelRecipe {
    name: "debian-bookworm-cloud",
    suite: "bookworm",
    package: "linux-image-cloud-amd64",
    modules: &[
        "virtio_mmio",
        "virtio_blk",
        "virtio_console",
        "erofs",
        "overlay",
        "virtio_net",
        "virtio_rng",
        "vmw_vsock_virtio_transport",
    ],
    epoch: EPOCH,
    room: 512 << 20,
}];

/// The images that can be built.
pub const IMAGES: &[ImageRecipe] = &[
    // No init, no package manager beyond dpkg: a shell and the usual small programs, for tests and for tools that
    // bring their own files.
    ImageRecipe {
        name: "debian-tiny",
        suite: "bookworm",
        variant: "custom",
        // usr-is-merged instead of usrmerge: the latter needs all of perl, more than everything else together.
        packages: &["?essential", "usr-is-merged", "iproute2", "mount", "procps"],
        masked: &[],
        started_by_socket: &[],
        epoch: EPOCH,
        tree_room: 300 << 20,
        image_room: 96 << 20,
    },
    // The default: a Debian that a developer feels at home in. No udev: every device of a microVM is there from
    // the start, and its units would be waited for.
    ImageRecipe {
        name: "debian-bookworm",
        suite: "bookworm",
        variant: "apt",
        packages: &[
            "bash-completion",
            "build-essential",
            "ca-certificates",
            "curl",
            "dbus",
            "file",
            "git",
            "iproute2",
            "iputils-ping",
            "jq",
            "kmod",
            "less",
            "libpam-systemd",
            "netbase",
            "openssh-client",
            "openssh-server",
            "procps",
            "psmisc",
            "python3",
            "python3-venv",
            "rsync",
            "sudo",
            "systemd-sysv",
            "tmux",
            "unzip",
            "vim-tiny",
            "xz-utils",
            "zstd",
        ],
        masked: &[
            // All that has a script of init's here has a unit too.
            "systemd/system-generators/systemd-rc-local-generator",
            "systemd/system-generators/systemd-sysv-generator",
            "systemd/system/apt-daily-upgrade.timer",
            "systemd/system/apt-daily.timer",
            "systemd/system/dev-hugepages.mount",
            "systemd/system/dpkg-db-backup.timer",
            "systemd/system/fstrim.timer",
            "systemd/system/getty.target",
            "systemd/system/proc-sys-fs-binfmt_misc.automount",
            // Without udev its device never appears, and the boot waits 90 s for it.
            "systemd/system/serial-getty@ttyS0.service",
            "systemd/system/sys-kernel-debug.mount",
            "systemd/system/sys-kernel-tracing.mount",
            "systemd/system/systemd-binfmt.service",
            "systemd/system/systemd-firstboot.service",
            "systemd/system/systemd-machine-id-commit.service",
            "systemd/system/systemd-modules-load.service",
            "systemd/system/systemd-pstore.service",
            "systemd/system/systemd-random-seed.service",
            "systemd/system/systemd-repart.service",
            // The kernel has made all devices that there are.
            "systemd/system/systemd-tmpfiles-setup-dev.service",
            // Nobody is kept from logging in until the boot is over, and so nobody has to be let in then.
            "systemd/system/systemd-user-sessions.service",
            "tmpfiles.d/systemd-nologin.conf",
        ],
        started_by_socket: &[("ssh.service", "ssh.socket")],
        epoch: EPOCH,
        tree_room: 1000 << 20,
        image_room: 640 << 20,
    },
];

/// Of a recipe of either kind: the same as long as it says the same.
pub fn digest(recipe: &impl Debug) -> Digest {
    Digest::of(format!("{recipe:?}").as_bytes())
}

impl KernelRecipe {
    pub fn find(name: &str) -> Option<&'static KernelRecipe> {
        KERNELS.iter().find(|recipe| recipe.name == name)
    }
}

impl ImageRecipe {
    pub fn find(name: &str) -> Option<&'static ImageRecipe> {
        IMAGES.iter().find(|recipe| recipe.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for recipe in IMAGES {
            assert_eq!(IMAGES.iter().filter(|other| other.name == recipe.name).count(), 1);
            assert!(ImageRecipe::find(recipe.name).is_some());
        }
        assert!(KernelRecipe::find("debian-bookworm-cloud").is_some());
        assert!(ImageRecipe::find("debian-bookworm-cloud").is_none());
    }

    #[test]
    fn names_are_plain_enough_for_a_shell() {
        for recipe in IMAGES {
            let units = recipe.started_by_socket.iter().flat_map(|(service, socket)| [service, socket]);
            for name in recipe.masked.iter().chain(units) {
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@/".contains(c)), "{name}");
            }
        }
    }
}
