//! Dictionaries as any client may send them: known keys and unknown ones, right types and wrong ones.

use banger_schemas::error::{Kind, Result};
use banger_schemas::network::Lease;
use banger_schemas::options::{Dict, DictBuilder};
use banger_schemas::sessions::{exec_from_dict, exec_to_dict};
use banger_schemas::vms::{Port, Spec};
use bolero::{TypeGenerator, check};

const KEYS: &[&str] = &[
    "name",
    "image",
    "kernel",
    "vcpus",
    "memory-mib",
    "disk-mib",
    "ports",
    "start",
    "ephemeral",
    "network",
    "argv",
    "env",
    "cwd",
    "tty",
    "stdin",
    "wait",
    "address",
    "prefix",
    "gateway",
    "dns",
    "mac",
    "mtu",
    "host-address",
    "traceparent",
];
const TEXTS: &[&str] =
    &["box", "debian-tiny", "8080:80", "0:1", "system", "agent", "172.16.0.2", "02:00:00:00:00:01", "-", ""];

#[derive(Debug, Clone, TypeGenerator)]
enum Value {
    Bool(bool),
    Byte(u8),
    Short(u16),
    Int(u32),
    SmallInt(u8),
    Long(u64),
    SmallLong(u16),
    Likely(u8),
    Text(String),
    LikelyTexts(Vec<u8>),
    Bytes(Vec<u8>),
    ManyBytes(Vec<Vec<u8>>),
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
    Size(u16, u16),
}

fn likely(index: u8) -> String {
    TEXTS[usize::from(index) % TEXTS.len()].to_owned()
}

fn dict(entries: &[(u8, Value)]) -> Dict {
    entries
        .iter()
        .fold(DictBuilder::default(), |dict, (key, value)| {
            let key = KEYS.get(usize::from(*key) % (KEYS.len() + 1)).unwrap_or(&"no-such-option");
            match value.clone() {
                Value::Bool(v) => dict.set(key, v),
                Value::Byte(v) => dict.set(key, v),
                Value::Short(v) => dict.set(key, v),
                Value::Int(v) => dict.set(key, v),
                Value::SmallInt(v) => dict.set(key, u32::from(v)),
                Value::Long(v) => dict.set(key, v),
                Value::SmallLong(v) => dict.set(key, u64::from(v)),
                Value::Likely(v) => dict.set(key, likely(v)),
                Value::Text(v) => dict.set(key, v),
                Value::LikelyTexts(v) => dict.set(key, v.into_iter().map(likely).collect::<Vec<_>>()),
                Value::Bytes(v) => dict.set(key, v),
                Value::ManyBytes(v) => dict.set(key, v),
                Value::Pairs(v) => dict.set(key, v),
                Value::Size(rows, columns) => dict.set(key, (rows, columns)),
            }
        })
        .build()
}

/// What is taken reads the same when it goes over the bus once more; what is refused names a reason.
fn same_again<T: PartialEq + std::fmt::Debug>(dict: Dict, from: impl Fn(Dict) -> Result<T>, to: impl Fn(&T) -> Dict) {
    match from(dict) {
        Ok(value) => assert_eq!(from(to(&value)).as_ref(), Ok(&value)),
        Err(error) => {
            assert!(!error.message.is_empty());
            assert!(matches!(error.kind, Kind::InvalidArgument | Kind::UnknownOption | Kind::Internal), "{error:?}");
        }
    }
}

#[test]
fn options_and_specs() {
    check!().with_type::<Vec<(u8, Value)>>().for_each(|entries| {
        same_again(dict(entries), Spec::from_dict, Spec::to_dict);
        same_again(dict(entries), exec_from_dict, exec_to_dict);
        same_again(dict(entries), Lease::from_dict, Lease::to_dict);
    });
}

#[test]
fn ports() {
    check!().with_type::<(u16, u16, String)>().for_each(|(host, guest, text)| {
        let ours = format!("{host}:{guest}");
        for text in [&ours, text] {
            if let Ok(port) = text.parse::<Port>() {
                assert_eq!(port.to_string().parse(), Ok(port));
            }
        }
    });
}
