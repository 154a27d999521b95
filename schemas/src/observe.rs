//! What every service tells of its own work: the spans of a trace, and numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use zbus::proxy;

use crate::error::{Error, Result};
use crate::options::{Dict, DictBuilder, Options};

/// Where a service of this name tells it: `/dev/banger/Vms1/observe`.
pub fn path(service: &str) -> String {
    format!("/{}/observe", service.replace('.', "/"))
}

/// A service as it is observed.
#[proxy(interface = "dev.banger.Observe1", assume_defaults = false)]
pub trait Observe {
    /// The spans of a trace (32 hexadecimal digits) that have ended and are still remembered. Each: `name s`,
    /// `service s`, `id s`, `parent s` (16 digits; empty: none), `start t` (nanoseconds since the epoch), `duration t`
    /// (nanoseconds), `error s` (empty: none), `attributes a{ss}`. Only calls whose `traceparent` has the flag
    /// *sampled* are remembered.
    fn spans(&self, trace: &str, options: Dict) -> zbus::Result<Vec<Dict>>;

    /// Numbers of this service's process, as Prometheus reads them (text format 0.0.4).
    fn metrics(&self) -> zbus::Result<String>;
}

/// The id of a trace. Whoever knows it may see the trace's spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl FromStr for TraceId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match hex::<32>(text).and_then(|digits| u128::from_str_radix(digits, 16).ok()) {
            Some(id) if id != 0 => Ok(TraceId(id)),
            _ => Err(Error::invalid(format!("{text:?} is no id of a trace: 32 hexadecimal digits"))),
        }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A piece of work that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub name: String,
    /// `Vms1`, …; `banger` for the client.
    pub service: String,
    pub id: u64,
    /// 0: none.
    pub parent: u64,
    /// Nanoseconds since the epoch.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    /// Empty: it did not fail.
    pub error: String,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    pub fn to_dict(&self) -> Dict {
        let id = |id: u64| if id == 0 { String::new() } else { format!("{id:016x}") };
        DictBuilder::default()
            .set("name", self.name.as_str())
            .set("service", self.service.as_str())
            .set("id", id(self.id))
            .set("parent", id(self.parent))
            .set("start", self.start)
            .set("duration", self.duration)
            .set("error", self.error.as_str())
            .set("attributes", self.attributes.clone())
            .build()
    }

    /// A span as a service tells it. What a newer service says beside this is left out.
    pub fn from_dict(dict: Dict) -> Result<Self> {
        let mut dict = Options::new(dict)?;
        let id = |text: String| match text.as_str() {
            "" => Ok(0),
            text => hex::<16>(text)
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| Error::invalid(format!("{text:?} is no id of a span"))),
        };
        Ok(Span {
            name: dict.require("name")?,
            service: dict.require("service")?,
            id: id(dict.require("id")?)?,
            parent: id(dict.require("parent")?)?,
            start: dict.require("start")?,
            duration: dict.require("duration")?,
            error: dict.require("error")?,
            attributes: dict.require("attributes")?,
        })
    }
}

/// `from_str_radix` alone takes a sign and any length.
fn hex<const N: usize>(text: &str) -> Option<&str> {
    (text.len() == N && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_survives_the_bus() {
        let span = Span {
            name: "Vms1.Create".into(),
            service: "Vms1".into(),
            id: 7,
            parent: 0,
            start: 1,
            duration: u64::MAX,
            error: String::new(),
            attributes: BTreeMap::from([("vm".into(), "box".into())]),
        };
        assert_eq!(Span::from_dict(span.to_dict()), Ok(span.clone()));
        assert_eq!(span.to_dict()["id"].downcast_ref::<&str>().unwrap(), "0000000000000007");
    }

    #[test]
    fn an_id_of_a_trace_has_32_digits_and_is_not_zero() {
        let text = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(text.parse::<TraceId>().unwrap().to_string(), text);
        let wrong = ["", "0af7651916cd43dd", "+af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"];
        assert!(wrong.iter().all(|text| text.parse::<TraceId>().is_err()));
    }
}
