//! What the network must find again.

use std::net::Ipv4Addr;

use banger_bus::records::Record;
use banger_schemas::vms::Port;
use serde::{Deserialize, Serialize};

/// A VM's place in the network, for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) address: Ipv4Addr,
    /// The loopback address that its name resolves to on the host; none where the host lets us listen at no other
    /// than 127.0.0.1.
    pub(crate) host_address: Option<Ipv4Addr>,
    /// Published ports, and the internal port that each goes through.
    pub(crate) ports: Vec<(Port, u16)>,
    /// Whether its TAP is to exist.
    pub(crate) open: bool,
}

impl Record for LeaseRecord {
    const TABLE: &'static str = "leases";
    const VERSION: u32 = 1;
}

/// The last address that was given, so that freed ones rest for a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last(pub(crate) Ipv4Addr);

impl Record for Last {
    const TABLE: &'static str = "last-address";
    const VERSION: u32 = 1;
}
