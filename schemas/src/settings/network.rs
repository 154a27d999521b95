//! What may be said of the network of a host's machines, and what holds where nothing is.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::id::TAP_PREFIX;

/// As others' bridges are named, and where Docker and libvirt are not.
const BRIDGE: &str = "br-banger";
const NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 24);

/// Smaller ones have room for no machine; larger ones are nobody's to have whole.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;
/// RFC 6890: this host, loopback, link-local, multicast, reserved.
pub const NOBODYS: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// What the kernel takes as a link's name (IFNAMSIZ, with its NUL).
const NAME_LENGTH: usize = 15;

/// The name of a link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LinkName(String);

impl LinkName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LinkName {
    fn default() -> Self {
        LinkName(BRIDGE.to_owned())
    }
}

impl TryFrom<String> for LinkName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        // The two that are folders wherever the kernel shows links.
        if name.is_empty() || name.len() > NAME_LENGTH || !name.bytes().all(plain) || matches!(&*name, "." | "..") {
            let message = "no name for a link: it has at most 15 of A-Z, a-z, 0-9, '-', '_' and '.'";
            return Err(format!("{name:?} is {message}"));
        }
        if name.starts_with(TAP_PREFIX) {
            return Err(format!("{name:?} looks like a machine's own device: choose one that does not begin with bg-"));
        }
        Ok(LinkName(name))
    }
}

/// A network that machines may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Subnet(Ipv4Net);

impl Default for Subnet {
    fn default() -> Self {
        Subnet(NETWORK)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let net: Ipv4Net = text.parse().map_err(|_| format!("{text:?} is no network: it is written like {NETWORK}"))?;
        if net != net.trunc() {
            return Err(format!("{net} is an address in a network: do you mean {}?", net.trunc()));
        }
        if !PREFIXES.contains(&net.prefix_len()) {
            let (widest, narrowest) = (PREFIXES.start(), PREFIXES.end());
            return Err(format!("{net} has another size than machines' networks can have: /{widest} to /{narrowest}"));
        }
        if NOBODYS.iter().any(|other| other.contains(&net) || net.contains(other)) {
            return Err(format!("{net} holds addresses that no network may use: take a private one, like {NETWORK}"));
        }
        Ok(Subnet(net))
    }
}

impl Subnet {
    /// Its first address, with its prefix.
    pub fn first(self) -> Ipv4Net {
        let first = self.0.hosts().next().unwrap_or(self.0.addr());
        Ipv4Net::new_assert(first, self.0.prefix_len())
    }

    /// The bridge's own address, with the network's prefix.
    pub fn bridge(self, chosen: Option<Ipv4Addr>) -> Result<Ipv4Net, String> {
        let (net, address) = (self.0, chosen.unwrap_or(self.first().addr()));
        if !net.contains(&address) || address == net.network() || address == net.broadcast() {
            return Err(format!(
                "{address} is no address that a bridge of {net} can have: set both, or the network alone"
            ));
        }
        Ok(Ipv4Net::new_assert(address, net.prefix_len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_a_name_that_the_kernel_takes_and_no_machine_has() {
        for good in ["br0", "br-banger", "virbr_1.2", "abcdefghijklmno"] {
            assert_eq!(LinkName::try_from(good.to_owned()).map(|name| name.0), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", "abcdefghijklmnop", "a b", "a/b", "br\"0", "brücke", "br;flush", "bg-aaaaaaaaaa"] {
            assert!(LinkName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_is_one_that_machines_may_have() {
        let subnet = |text: &str| Subnet::try_from(text.to_owned());
        for good in ["172.16.0.0/24", "10.0.0.0/8", "192.168.7.252/30", "100.64.0.0/10"] {
            assert_eq!(subnet(good).unwrap().0.to_string(), good);
        }
        let told = |text: &str| subnet(text).unwrap_err();
        assert!(told("10.1.2.3/16").ends_with("do you mean 10.1.0.0/16?"));
        assert!(told("10.0.0.0/31").ends_with("/8 to /30") && told("8.0.0.0/6").ends_with("/8 to /30"));
        for nobodys in ["127.0.0.0/8", "127.9.0.0/16", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/24", "255.0.0.0/8"] {
            assert!(told(nobodys).contains("no network may use"), "{nobodys}");
        }
        for no_network in ["", "10.0.0.0", "10.0.0/8", "fd00::/64", "10.0.0.0/24 "] {
            assert!(told(no_network).contains("is no network"), "{no_network}");
        }
    }

    #[test]
    fn the_bridge_has_an_address_of_its_network() {
        let subnet = Subnet::try_from("10.1.16.0/20".to_owned()).unwrap();
        let bridge = |address: &str| subnet.bridge(Some(address.parse().unwrap())).map(|net| net.to_string());
        assert_eq!(subnet.bridge(None).unwrap().to_string(), "10.1.16.1/20");
        assert_eq!(bridge("10.1.17.255"), Ok("10.1.17.255/20".to_owned()));
        for outside in ["10.1.16.0", "10.1.31.255", "10.1.15.1", "172.16.0.1"] {
            assert!(bridge(outside).unwrap_err().starts_with(outside));
        }
        assert_eq!(Subnet::default().bridge(None).unwrap().to_string(), "172.16.0.1/24");
    }
}
