//! What the supervisor must find again: one record a VM, written before the effect that it describes.

use banger_bus::process::Process;
use banger_bus::records::Record;
use banger_schemas::network::Lease;
use banger_schemas::vms::{Details, Port, Wanted};
use banger_schemas::{ImageName, VmId, VmName};
use serde::{Deserialize, Serialize};

use crate::host_key::HostKey;

/// A VM as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub(crate) id: VmId,
    pub(crate) name: VmName,
    pub(crate) owner: u32,
    pub(crate) image: ImageName,
    pub(crate) kernel: ImageName,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    pub(crate) ports: Vec<Port>,
    /// Whether it shall have a network.
    pub(crate) network: bool,
    /// Whether it shall reach the outside.
    pub(crate) nat: bool,
    /// What it is to be run by.
    pub(crate) wanted: Wanted,
    /// It boots, whatever template there is.
    pub(crate) cold: bool,
    /// Seconds since the epoch.
    pub(crate) created: u64,
    /// The caller's token: a repeated `Create` finds this VM.
    pub(crate) token: Option<String>,
    pub(crate) machine_id: [u8; 16],
    /// By which its ssh server is known. One of an earlier version has what its guest made for itself.
    pub(crate) host_key: Option<HostKey>,
    pub(crate) intent: Intent,
    /// The network that it was given.
    pub(crate) lease: Option<Lease>,
    pub(crate) client: Option<Client>,
    /// How its VMM runs, while it does.
    pub(crate) backend: Option<String>,
    /// Why so.
    pub(crate) backend_reason: Option<String>,
    /// How it was started, while it runs.
    pub(crate) started: Option<Started>,
    pub(crate) disks: Disks,
    /// The VM's keeper, while it has one.
    pub(crate) keeper: Option<Process>,
}

/// What a VM's disks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Disks {
    /// Empty, and why they are no template's.
    Fresh(String),
    /// Copies of this template's, which only its guest can go on with.
    Copied(String),
    /// Some guest has written to them, or may have.
    Used,
}

/// How a VM was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// From a template; else it has booted.
    pub(crate) template: bool,
    /// Why it has booted.
    pub(crate) reason: String,
}

impl Started {
    /// From a template, unless there is a reason against it.
    pub(crate) fn of(reason: Option<&String>) -> Self {
        Started { template: reason.is_none(), reason: reason.cloned().unwrap_or_default() }
    }
}

/// What is being done with the VM, as it must be gone on with after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Intent {
    /// Half made: undone.
    Create,
    /// At rest.
    Stopped,
    /// Running, or about to: adopted if its keeper lives.
    Run,
    /// On its way down.
    Stop,
    /// On its way out: gone on with.
    Remove,
}

/// The client that an ephemeral VM is leased to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// Unique name on the bus that it created the VM on.
    pub(crate) bus_name: String,
    pub(crate) process: Process,
}

impl VmRecord {
    pub(crate) fn details(&self) -> Details {
        let VmRecord { name, owner, image, vcpus, memory_mib, disk_mib, .. } = self;
        Details::new(name.as_str(), *owner, image.as_str(), *vcpus, *memory_mib, *disk_mib)
    }
}

impl Record for VmRecord {
    const TABLE: &'static str = "vms";
    const VERSION: u32 = 5;

    /// Version 1 left the backend to the host; version 2 knew no templates; in version 3 each VM reached the
    /// outside; version 4 left the keys of ssh servers to them.
    fn migrate(version: u32, mut value: serde_json::Value) -> Option<Self> {
        let record = value.as_object_mut()?;
        if version == 1 {
            record.insert("wanted".to_owned(), "auto".into());
            record.insert("backend_reason".to_owned(), serde_json::Value::Null);
        }
        if version <= 2 {
            record.insert("cold".to_owned(), false.into());
            record.insert("started".to_owned(), serde_json::Value::Null);
            record.insert("disks".to_owned(), "used".into());
        }
        if version <= 3 {
            record.insert("nat".to_owned(), true.into());
        }
        record.insert("host_key".to_owned(), serde_json::Value::Null);
        serde_json::from_value(value).ok()
    }
}

#[cfg(test)]
mod golden {
    use super::*;
    use banger_bus::records::{decode, encode};

    /// Everything that a record may hold.
    const FULL: &str = concat!(
        r#"{"v":5,"record":{"backend":"qemu-tcg","backend_reason":"KVM hangs","client":{"bus_name":":1.7","process":{"boot":"b","pid":42,"start":99}},"#,
        r#""cold":true,"created":1700000000,"disk_mib":8192,"disks":{"copied":"k"},"host_key":{"private":"s","public":"p"},"id":"abcdefghij","image":"debian-tiny","intent":"run","#,
        r#""keeper":{"boot":"b","pid":7,"start":8},"kernel":"debian-bookworm-cloud","lease":{"address":"172.30.0.2","dns":["10.0.2.3"],"gateway":"172.30.0.1","#,
        r#""host_address":"127.77.0.2","mac":[2,0,0,0,0,1],"mtu":1500,"prefix":24},"#,
        r#""machine_id":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,255],"memory_mib":1024,"name":"box","nat":false,"network":true,"#,
        r#""owner":1000,"ports":[{"guest":80,"host":8080}],"#,
        r#""started":{"reason":"r","template":false},"token":"t","vcpus":2,"wanted":"qemu"}}"#,
    );

    const KEY: &str = r#"{"private":"s","public":"p"}"#;

    /// The same, of an earlier version.
    fn old(version: u32) -> String {
        let fourth =
            FULL.replace(r#""v":5"#, &format!(r#""v":{version}"#)).replace(&format!(r#""host_key":{KEY},"#), "");
        let third = fourth.replace(r#""nat":false,"#, "");
        let second = third
            .replace(r#""cold":true,"#, "")
            .replace(r#""disks":{"copied":"k"},"#, "")
            .replace(r#""started":{"reason":"r","template":false},"#, "");
        match version {
            4 => fourth,
            3 => third,
            2 => second,
            _ => second.replace(r#""backend_reason":"KVM hangs","#, "").replace(r#","wanted":"qemu""#, ""),
        }
    }

    fn without_key() -> String {
        FULL.replace(KEY, "null")
    }

    fn with_nat() -> String {
        without_key().replace(r#""nat":false"#, r#""nat":true"#)
    }

    /// What is known of templates where an earlier version has not.
    fn without_templates() -> String {
        with_nat()
            .replace(r#""cold":true"#, r#""cold":false"#)
            .replace(r#"{"copied":"k"}"#, r#""used""#)
            .replace(r#"{"reason":"r","template":false}"#, "null")
    }

    fn again(stored: &str) -> String {
        let record: VmRecord = decode("abcdefghij", stored.as_bytes()).unwrap();
        String::from_utf8(encode(&record).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_of_an_earlier_version_is_what_it_was() {
        assert_eq!(again(&old(4)), without_key());
        assert_eq!(again(&old(3)), with_nat());
        assert_eq!(again(&old(2)), without_templates());
        let first =
            without_templates().replace(r#""KVM hangs""#, "null").replace(r#""wanted":"qemu""#, r#""wanted":"auto""#);
        assert_eq!(again(&old(1)), first);
    }

    #[test]
    fn a_machine_is_read_and_written_as_ever() {
        assert_eq!(again(FULL), FULL);
        let lease = &FULL[FULL.find(r#"{"address""#).unwrap()..FULL.find(r#","machine_id""#).unwrap()];
        let bare = without_key()
            .replace(r#""qemu-tcg""#, "null")
            .replace(r#""KVM hangs""#, "null")
            .replace(r#"{"bus_name":":1.7","process":{"boot":"b","pid":42,"start":99}}"#, "null")
            .replace(r#"{"boot":"b","pid":7,"start":8}"#, "null")
            .replace(lease, "null")
            .replace(r#"[{"guest":80,"host":8080}]"#, "[]")
            .replace(r#""t""#, "null")
            .replace(r#"{"reason":"r","template":false}"#, "null");
        assert_eq!(again(&bare), bare);
        for disks in [r#"{"fresh":"r"}"#, r#""used""#] {
            let stored = FULL.replace(r#"{"copied":"k"}"#, disks);
            assert_eq!(again(&stored), stored);
        }
    }

    #[test]
    fn every_intent_is_known() {
        for intent in ["create", "stopped", "run", "stop", "remove"] {
            let stored = FULL.replace(r#""run""#, &format!("{intent:?}"));
            assert_eq!(again(&stored), stored);
        }
    }
}
