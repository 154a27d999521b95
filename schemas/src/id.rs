//! Identifiers. Host-side names (TAPs, units, folders) are derived from a [`VmId`], never from a name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the names of machines' network devices begin.
pub const TAP_PREFIX: &str = "bg-";

/// A VM's identity for its whole life: ten characters of `[a-z0-9]`, the first a letter.
///
/// Short enough for an interface name (`bg-` + id is 13 of 15 characters) and a user name (`bvm-` + id).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId(String);

/// Length of every id.
pub const LEN: usize = 10;

impl VmId {
    /// Makes an id of ten random bytes.
    pub fn from_random(random: [u8; LEN]) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut id: String = random.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
        id.replace_range(0..1, &char::from(ALPHABET[usize::from(random[0] % 26)]).to_string());
        VmId(id)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this VM's TAP: at most 15 characters (`IFNAMSIZ` less the NUL).
    pub fn tap_name(&self) -> String {
        format!("{TAP_PREFIX}{}", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no VM id: ten characters of a-z and 0-9, the first a letter")]
pub struct InvalidId(pub String);

impl FromStr for VmId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let ok = s.len() == LEN
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && s.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if ok { Ok(VmId(s.to_owned())) } else { Err(InvalidId(s.to_owned())) }
    }
}

impl TryFrom<String> for VmId {
    type Error = InvalidId;
    fn try_from(s: String) -> Result<Self, InvalidId> {
        s.parse()
    }
}

impl From<VmId> for String {
    fn from(id: VmId) -> String {
        id.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_back() {
        for i in 0..=255u8 {
            let id = VmId::from_random([i; LEN]);
            assert_eq!(id.as_str().parse::<VmId>().unwrap(), id);
            assert!(id.tap_name().len() <= 15);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in ["", "abc", "0bcdefghij", "ABCDEFGHIJ", "abcdefghi/", "abcdefghijk", "../../etc/"] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
        }
    }
}
