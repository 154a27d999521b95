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
    /// Whether it reaches the outside.
    pub(crate) nat: bool,
}

impl Record for LeaseRecord {
    const TABLE: &'static str = "leases";
    const VERSION: u32 = 2;

    /// Version 1 knew no VM that reaches nothing.
    fn migrate(version: u32, mut value: serde_json::Value) -> Option<Self> {
        if version != 1 {
            return None;
        }
        value.as_object_mut()?.insert("nat".to_owned(), true.into());
        serde_json::from_value(value).ok()
    }
}

/// The last address that was given, so that freed ones rest for a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last(pub(crate) Ipv4Addr);

impl Record for Last {
    const TABLE: &'static str = "last-address";
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod golden {
    use super::*;
    use banger_bus::records::{decode, encode};

    const OLD_LEASE: &str = r#"{"v":1,"record":{"address":"172.30.0.2","host_address":"127.77.0.2","open":true,"ports":[[{"guest":80,"host":8080},20000]]}}"#;
    const LEASE: &str = r#"{"v":2,"record":{"address":"172.30.0.2","host_address":"127.77.0.2","nat":true,"open":true,"ports":[[{"guest":80,"host":8080},20000]]}}"#;
    const BARE_LEASE: &str =
        r#"{"v":2,"record":{"address":"172.30.0.3","host_address":null,"nat":false,"open":false,"ports":[]}}"#;
    const LAST: &str = r#"{"v":1,"record":"172.30.0.3"}"#;

    fn again<R: Record>(stored: &str) -> String {
        let record: R = decode("abcdefghij", stored.as_bytes()).unwrap();
        String::from_utf8(encode(&record).unwrap()).unwrap()
    }

    #[test]
    fn records_are_read_and_written_as_ever() {
        assert_eq!(again::<LeaseRecord>(LEASE), LEASE);
        assert_eq!(again::<LeaseRecord>(OLD_LEASE), LEASE);
        assert_eq!(again::<LeaseRecord>(BARE_LEASE), BARE_LEASE);
        assert_eq!(again::<Last>(LAST), LAST);
        let lease: LeaseRecord = decode("abcdefghij", LEASE.as_bytes()).unwrap();
        assert_eq!(lease.ports, [(Port { host: 8080, guest: 80 }, 20000)]);
    }
}
