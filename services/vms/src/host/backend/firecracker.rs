//! Which Firecracker it is, and whether it boots the kernels of ours.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use super::probe;

/// Versions that are known to work. Before the first, devices were announced on the kernel's command line, from which
/// Debian's kernels take none (`VIRTIO_MMIO_CMDLINE_DEVICES`); since then ACPI tells of them.
pub(super) const KNOWN: RangeInclusive<Version> = Version { major: 1, minor: 8 }..=Version { major: 1, minor: 17 };

/// Of Firecracker, as far as it tells what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// A newer one than was tried is used: its API only grows within a major version.
    pub(super) fn check(self) -> Result<(), String> {
        let (oldest, newest) = (KNOWN.start(), KNOWN.end());
        if self < *oldest {
            return Err(format!("{self} does not tell banger's kernel of its devices: install {oldest} or newer"));
        }
        if self.major > newest.major {
            return Err(format!("{self} may have another API: install one of {oldest} to {newest}"));
        }
        Ok(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ();

    /// `Firecracker v1.8.0`, and whatever comes after the first line.
    fn from_str(said: &str) -> Result<Self, ()> {
        let mut numbers = said.strip_prefix("Firecracker v").ok_or(())?.split(['.', '-', '\n']);
        let mut number = || numbers.next().and_then(|number| number.parse().ok()).ok_or(());
        Ok(Version { major: number()?, minor: number()? })
    }
}

/// What the program says it is.
pub(super) fn version(program: &Path) -> Result<Version, String> {
    let silent = format!("{} does not say its version", program.display());
    let mut command = Command::new(program);
    command.arg("--version");
    let (_, said) = probe::run(command, &[], &silent)?;
    String::from_utf8_lossy(&said).parse().map_err(|()| silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_the_program_says_first() {
        for said in ["Firecracker v1.8.0\n\nSupported snapshot data format versions: 2.0\n", "Firecracker v1.8-dev\n"] {
            assert_eq!(said.parse(), Ok(Version { major: 1, minor: 8 }));
        }
        for said in ["", "Firecracker", "Firecracker v\n", "Firecracker v1\n", "QEMU emulator version 7.2"] {
            assert_eq!(said.parse::<Version>(), Err(()));
        }
    }

    #[test]
    fn what_is_no_firecracker_is_told_in_bounded_time() {
        let of = |path: &str| version(Path::new(path)).unwrap_err();
        assert_eq!(of("/bin/true"), "/bin/true does not say its version");
        let folder = tempfile::tempdir().unwrap();
        let silent = folder.path().join("silent");
        std::fs::write(&silent, "#!/bin/sh\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(&silent, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let silent = silent.to_str().unwrap();
        assert_eq!(of(silent), format!("{silent} does not say its version"));
        assert!(of("/nowhere/firecracker").starts_with("cannot run /nowhere/firecracker: "));
    }

    #[test]
    fn old_ones_are_refused_and_the_next_ones_are_tried() {
        let check = |minor| Version { major: 1, minor }.check();
        assert!(check(8).is_ok() && check(17).is_ok() && check(99).is_ok());
        assert_eq!(check(7).unwrap_err(), "1.7 does not tell banger's kernel of its devices: install 1.8 or newer");
        assert!(Version { major: 2, minor: 0 }.check().unwrap_err().contains("1.8 to 1.17"));
    }
}
