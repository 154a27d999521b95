//! What the file of settings may say, as TOML (docs/settings.md). Every key may be absent, and then the service decides.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::Deserialize;
use toml::de::DeTable;

mod network;

pub use network::{LinkName, NOBODYS, Subnet};

/// All keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The address of the bridge, machines' gateway: in place of the first of their network.
    pub bridge_ip: Option<Ipv4Addr>,
    /// The name of the bridge that machines' devices are ports of.
    pub bridge_name: Option<LinkName>,
    /// The network that machines are in.
    pub cidr: Option<Subnet>,
    /// Whom machines' questions for names are led on to, in place of whom this host asks.
    pub default_dns: Option<Ipv4Addr>,
    /// The Firecracker to use, in place of one that is found.
    pub firecracker_bin: Option<PathBuf>,
    /// How long the background process of embedded mode stays when nothing needs it.
    pub linger_seconds: Option<u64>,
    /// What is logged, as `tracing` filters say it.
    pub log_level: Option<String>,
    /// Where packages come from, as mmdebstrap takes it.
    pub mirrors: Vec<String>,
    /// TAPs that are made before a machine needs one.
    pub tap_pool_size: Option<u8>,
    /// Whether other firewalls that drop machines' packets may be told to let them pass.
    pub tell_firewalls: Option<bool>,
    /// Whether machines go on from templates, and templates are made.
    pub templates: Option<bool>,
}

/// The names of those.
const KEYS: [&str; 11] = [
    "bridge_ip",
    "bridge_name",
    "cidr",
    "default_dns",
    "firecracker_bin",
    "linger_seconds",
    "log_level",
    "mirrors",
    "tap_pool_size",
    "tell_firewalls",
    "templates",
];
/// Less alike than this is another word (Jaro-Winkler; clap takes the same).
const ALIKE: f64 = 0.7;

/// A file that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SettingsError {
    pub line: usize,
    pub message: String,
}

impl Settings {
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let refused = |error: toml::de::Error| SettingsError {
            line: line(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        };
        let table = DeTable::parse(text).map_err(refused)?.into_inner();
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.get_ref().as_ref())) {
            return Err(SettingsError { line: line(key.span().start), message: unknown(key.get_ref()) });
        }
        let settings: Settings = toml::from_str(text).map_err(refused)?;
        if let Some((key, message)) = settings.mistake() {
            let at = table.keys().find(|known| known.get_ref() == key).map_or(0, |known| known.span().start);
            return Err(SettingsError { line: line(at), message: format!("{key}: {message}") });
        }
        Ok(settings)
    }

    /// The bridge's own address, with the prefix of machines' network.
    pub fn bridge_address(&self) -> Result<Ipv4Net, String> {
        self.cidr.unwrap_or_default().bridge(self.bridge_ip)
    }

    /// What does not follow from a value's type.
    fn mistake(&self) -> Option<(&'static str, String)> {
        if self.firecracker_bin.as_ref().is_some_and(|path| path.is_relative()) {
            return Some(("firecracker_bin", "it must be a full path".to_owned()));
        }
        if self.default_dns.is_some_and(|dns| dns.is_loopback() || dns.is_unspecified() || dns.is_multicast()) {
            return Some(("default_dns", "machines cannot be led on to this address".to_owned()));
        }
        self.bridge_address().err().map(|message| ("bridge_ip", message))
    }
}

fn unknown(key: &str) -> String {
    let alike = KEYS.map(|known| (strsim::jaro_winkler(key, known), known));
    let nearest = alike.into_iter().max_by(|one, other| one.0.total_cmp(&other.0)).filter(|found| found.0 > ALIKE);
    match nearest {
        Some((_, known)) => format!("there is no setting '{key}': did you mean '{known}'?"),
        None => format!("there is no setting '{key}': there are {}", KEYS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_may_be_absent() {
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        let text = "bridge_ip = '10.7.0.2'\nbridge_name = 'br7'\ncidr = '10.7.0.0/24'\ndefault_dns = '10.9.9.9'\n\
                    firecracker_bin = '/usr/local/bin/firecracker'\nlinger_seconds = 5\nlog_level = 'debug'\n\
                    mirrors = ['http://one.example/debian', 'deb http://two.example trixie main']\n\
                    tap_pool_size = 4\ntell_firewalls = false # a comment\ntemplates = false\n";
        assert_eq!(text.lines().count(), KEYS.len());
        let expected = Settings {
            bridge_ip: Some(Ipv4Addr::new(10, 7, 0, 2)),
            bridge_name: Some("br7".to_owned().try_into().unwrap()),
            cidr: Some("10.7.0.0/24".to_owned().try_into().unwrap()),
            default_dns: Some(Ipv4Addr::new(10, 9, 9, 9)),
            firecracker_bin: Some("/usr/local/bin/firecracker".into()),
            linger_seconds: Some(5),
            log_level: Some("debug".into()),
            mirrors: vec!["http://one.example/debian".into(), "deb http://two.example trixie main".into()],
            tap_pool_size: Some(4),
            tell_firewalls: Some(false),
            templates: Some(false),
        };
        assert_eq!(Settings::parse(text), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let told = |text: &str| Settings::parse(text).unwrap_err().to_string();
        assert_eq!(
            told("templates = true\nfirecraker_bin = '/x'"),
            "line 2: there is no setting 'firecraker_bin': did you mean 'firecracker_bin'?"
        );
        assert!(told("web_listen = 1").starts_with("line 1: there is no setting 'web_listen': there are bridge_ip,"));
        assert!(told("\n\ntap_pool_size = 'many'").starts_with("line 3: invalid type"));
        assert!(told("tap_pool_size = 1000").starts_with("line 1: invalid value"));
        assert!(told("templates =").starts_with("line 1: "));
        assert!(told("templates = true\ntemplates = true").starts_with("line 2: duplicate key"));
        assert!(told("[network]\nx = 1").contains("no setting 'network'"));
        assert_eq!(told("\nfirecracker_bin = 'bin/firecracker'"), "line 2: firecracker_bin: it must be a full path");
        assert_eq!(
            told("cidr = '10.1.2.3/16'"),
            "line 1: 10.1.2.3/16 is an address in a network: do you mean 10.1.0.0/16?"
        );
        assert!(told("templates = true\nbridge_name = 'a b'").starts_with("line 2: \"a b\" is no name for a link"));
        assert!(
            told("bridge_ip = '10.0.0.1'")
                .starts_with("line 1: bridge_ip: 10.0.0.1 is no address that a bridge of 172")
        );
        assert!(told("bridge_ip = '10.0.0'").starts_with("line 1: invalid IPv4 address"));
        assert!(told("\ndefault_dns = '127.0.0.53'").starts_with("line 2: default_dns: machines cannot"));
    }
}
