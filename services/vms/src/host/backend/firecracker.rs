//! Which Firecracker it is, and whether it boots the kernels of ours.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

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
    let said = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).output();
    let said = said.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&said.stdout);
    text.parse().map_err(|()| format!("{} does not say its version", program.display()))
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
    fn old_ones_are_refused_and_the_next_ones_are_tried() {
        let check = |minor| Version { major: 1, minor }.check();
        assert!(check(8).is_ok() && check(17).is_ok() && check(99).is_ok());
        assert_eq!(check(7).unwrap_err(), "1.7 does not tell banger's kernel of its devices: install 1.8 or newer");
        assert!(Version { major: 2, minor: 0 }.check().unwrap_err().contains("1.8 to 1.17"));
    }
}
