//! Names that people give: parsed once at the edge, so that inside there is nothing to check twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("{0:?} is no VM name: use 1 to 63 of a-z, 0-9 and '-', not first or last '-' (an RFC 1123 label)")]
    Vm(String),
    #[error("{0:?} is no image or kernel name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")]
    Image(String),
}

/// A VM's name: one RFC 1123 label, since it becomes a DNS name (`NAME.vm`) and the guest's host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// The name of an image or a kernel in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl FromStr for VmName {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let ok = (1..=63).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !s.starts_with('-')
            && !s.ends_with('-');
        if ok { Ok(VmName(s.to_owned())) } else { Err(InvalidName::Vm(s.to_owned())) }
    }
}

impl FromStr for ImageName {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let ok = (1..=63).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && s.as_bytes().first().is_some_and(|b| b.is_ascii_alphanumeric());
        if ok { Ok(ImageName(s.to_owned())) } else { Err(InvalidName::Image(s.to_owned())) }
    }
}

macro_rules! name {
    ($t:ident) => {
        impl $t {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $t {
            type Error = InvalidName;
            fn try_from(s: String) -> Result<Self, InvalidName> {
                s.parse()
            }
        }
        impl From<$t> for String {
            fn from(name: $t) -> String {
                name.0
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name!(VmName);
name!(ImageName);

const ADJECTIVES: [&str; 16] = [
    "brave", "calm", "clever", "eager", "fleet", "gentle", "happy", "keen", "lively", "mellow", "nimble", "proud",
    "quick", "quiet", "sunny", "witty",
];
const ANIMALS: [&str; 16] = [
    "badger", "beaver", "crane", "falcon", "ferret", "gecko", "heron", "ibex", "lynx", "marten", "otter", "panda",
    "puffin", "raven", "stoat", "wombat",
];

impl VmName {
    /// A friendly name from four random bytes, for those who give none: `quick-otter-5f3a`.
    pub fn generated(random: [u8; 4]) -> Self {
        let [a, b, c, d] = random;
        VmName(format!("{}-{}-{c:02x}{d:02x}", ADJECTIVES[usize::from(a % 16)], ANIMALS[usize::from(b % 16)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1123_labels_are_names() {
        for good in ["a", "box", "box-1", "0box", &"a".repeat(63)] {
            assert!(good.parse::<VmName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "Box", "a.b", "a_b", "a b", "a\n", "ä", "../x", &"a".repeat(64)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_names_are_names() {
        for i in 0..=255u8 {
            let name = VmName::generated([i, i.wrapping_mul(7), i, 0]);
            assert_eq!(name.as_str().parse::<VmName>().unwrap(), name);
        }
    }

    #[test]
    fn image_names_never_climb() {
        for bad in ["", ".", "..", "../x", "a/b", "-x", "A"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
        assert!("debian-bookworm".parse::<ImageName>().is_ok());
    }
}
