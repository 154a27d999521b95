//! Sizes with their bounds: what a VM may be made of.

use std::fmt;
use std::str::FromStr;

/// A size that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    #[error("{0:?} is no size: give a number with M, MiB, G or GiB, such as 512M or 8G")]
    Syntax(String),
    #[error("{what} must be between {min} and {max} {unit}, not {got}")]
    Range { what: &'static str, min: u64, max: u64, unit: &'static str, got: u64 },
}

/// Checks `got` against what is allowed; returns it.
fn within(what: &'static str, unit: &'static str, min: u64, max: u64, got: u64) -> Result<u64, InvalidSize> {
    if (min..=max).contains(&got) { Ok(got) } else { Err(InvalidSize::Range { what, min, max, unit, got }) }
}

/// Memory of a VM in MiB.
pub fn memory_mib(mib: u64) -> Result<u32, InvalidSize> {
    within("memory", "MiB", 128, 1 << 20, mib).map(|m| u32::try_from(m).unwrap_or(u32::MAX))
}

/// Virtual CPUs of a VM.
pub fn vcpus(count: u64) -> Result<u32, InvalidSize> {
    within("the number of vCPUs", "vCPUs", 1, 64, count).map(|c| u32::try_from(c).unwrap_or(u32::MAX))
}

/// Size of a VM's disk in MiB.
pub fn disk_mib(mib: u64) -> Result<u64, InvalidSize> {
    within("the disk size", "MiB", 64, 1 << 24, mib)
}

/// A number of MiB as people write it: `512`, `512M`, `8G`, `8GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mib(pub u64);

impl FromStr for Mib {
    type Err = InvalidSize;
    fn from_str(s: &str) -> Result<Self, InvalidSize> {
        let syntax = || InvalidSize::Syntax(s.to_owned());
        let digits = s.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match s[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "m" | "mib" | "mb" => 1,
            "g" | "gib" | "gb" => 1024,
            "t" | "tib" | "tb" => 1024 * 1024,
            _ => return Err(syntax()),
        };
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Mib).ok_or_else(syntax)
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1024 && self.0.is_multiple_of(1024) {
            write!(f, "{} GiB", self.0 / 1024)
        } else {
            write!(f, "{} MiB", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        assert_eq!("512".parse(), Ok(Mib(512)));
        assert_eq!("8G".parse(), Ok(Mib(8192)));
        assert_eq!("1GiB".parse(), Ok(Mib(1024)));
        for bad in ["", "G", "-1", "1.5G", "1X", "99999999999999999999G", "18446744073709551615T"] {
            assert!(bad.parse::<Mib>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_name_themselves() {
        let error = memory_mib(4).unwrap_err().to_string();
        assert_eq!(error, "memory must be between 128 and 1048576 MiB, not 4");
        assert!(vcpus(0).is_err() && vcpus(65).is_err() && disk_mib(0).is_err());
    }
}
