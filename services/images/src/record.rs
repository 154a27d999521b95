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
