//! Claims: what a VM stands on. Everything else that the catalog knows is read from the stores.

use banger_bus::records::Record;
use serde::{Deserialize, Serialize};

use crate::build::Digest;

/// An image and a kernel that a VM is bound to, by digest: a newer build of the same name changes nothing for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) image: Digest,
    pub(crate) kernel: Digest,
}

impl Record for Claim {
    const TABLE: &'static str = "claims";
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod golden {
    use super::*;
    use banger_bus::records::{decode, encode};

    #[test]
    fn a_claim_of_version_1_is_read_and_written_as_ever() {
        let stored = format!(r#"{{"v":1,"record":{{"image":"{}","kernel":"{}"}}}}"#, "0a".repeat(32), "ff".repeat(32));
        let claim: Claim = decode("abcdefghij", stored.as_bytes()).unwrap();
        assert_eq!(claim.image.to_string(), "0a".repeat(32));
        assert_eq!(String::from_utf8(encode(&claim).unwrap()).unwrap(), stored);
    }
}
