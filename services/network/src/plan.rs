//! What a network looks like: its bridge, its addresses, and how it goes out. Pure.

use std::net::Ipv4Addr;

use banger_bus::settings::{LinkName, Settings, Subnet};
use banger_schemas::error::{Error, Result};
use ipnet::Ipv4Net;

/// What guests are told to use, and the uplink's too, so that nothing is fragmented on the way.
pub const MTU: u16 = 1500;

/// The uplink's device in a user's own namespace, and the fixed addresses at slirp4netns: its network, the
/// namespace's end of it, its resolver.
pub const UPLINK: &str = "tap0";
pub const UPLINK_NETWORK: &str = "10.0.2.0/24";
pub const UPLINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const UPLINK_DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The bridge that all TAPs are ports of.
    pub bridge: String,
    /// The bridge's own address, the guests' gateway, with the prefix of their network.
    pub net: Ipv4Net,
    pub uplink: Uplink,
    /// On a host, whom guests' questions for names are led on to; else whom the host itself asks.
    pub resolver: Option<Ipv4Addr>,
}

/// How packets leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uplink {
    /// By slirp4netns, from a namespace of the user's own. Ports are published at loopback addresses.
    Slirp,
    /// As the host routes them. Guests' addresses can be reached from the host itself.
    Host,
}

impl Plan {
    /// The network of one user.
    pub fn rootless() -> Self {
        Plan { uplink: Uplink::Slirp, ..Plan::of_the_host() }
    }

    /// The network of a host, as it is where nothing else is set.
    pub fn of_the_host() -> Self {
        let (bridge, net) = (LinkName::default(), Subnet::default().first());
        Plan { bridge: bridge.as_str().to_owned(), net, uplink: Uplink::Host, resolver: None }
    }

    /// The network of a host, as its settings want it.
    pub fn set(settings: &Settings) -> Result<Self> {
        let bridge = settings.bridge_name.clone().unwrap_or_default().as_str().to_owned();
        let net = settings.bridge_address().map_err(Error::invalid)?;
        Ok(Plan { bridge, net, resolver: settings.default_dns, ..Plan::of_the_host() })
    }

    pub fn gateway(&self) -> Ipv4Addr {
        self.net.addr()
    }

    /// How many guests there can be.
    pub fn size(&self) -> u32 {
        (self.net.hostmask().to_bits()).saturating_sub(2)
    }

    /// First and last address that a guest may have; the gateway's may be among them.
    pub fn guests(&self) -> (Ipv4Addr, Ipv4Addr) {
        let (first, last) = (self.net.network().to_bits(), self.net.broadcast().to_bits());
        (Ipv4Addr::from_bits(first.saturating_add(1)), Ipv4Addr::from_bits(last.saturating_sub(1)))
    }

    /// Whether another network has addresses of this one.
    pub fn overlaps(&self, other: Ipv4Net) -> bool {
        other.contains(&self.net.network()) || self.net.contains(&other.network())
    }

    /// Whom guests ask for names. At the gateway of a host there is no name server: its rules lead on to one.
    pub fn dns(&self) -> Ipv4Addr {
        match self.uplink {
            Uplink::Slirp => UPLINK_DNS,
            Uplink::Host => self.gateway(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_says_which_addresses_there_are() {
        let plan = Plan { net: net("10.1.17.1/20"), ..Plan::rootless() };
        assert_eq!(plan.guests(), (Ipv4Addr::new(10, 1, 16, 1), Ipv4Addr::new(10, 1, 31, 254)));
        assert_eq!((plan.size(), Plan::rootless().size()), (4093, 253));
    }

    #[test]
    fn networks_overlap_where_one_holds_the_other() {
        let plan = Plan::of_the_host();
        for other in ["172.16.0.77/32", "172.16.3.1/16", "1.1.1.1/0", "172.16.0.1/24"] {
            assert!(plan.overlaps(net(other)), "{other}");
        }
        assert!(!plan.overlaps(net("172.17.0.1/16")) && !plan.overlaps(net("172.16.1.0/24")));
    }

    #[test]
    fn a_host_has_the_network_that_is_set() {
        assert_eq!(Plan::set(&Settings::default()).unwrap(), Plan::of_the_host());
        let settings = Settings::parse("cidr = '10.7.0.0/16'\nbridge_name = 'br7'\ndefault_dns = '10.9.9.9'").unwrap();
        let resolver = Some(Ipv4Addr::new(10, 9, 9, 9));
        let expected = Plan { bridge: "br7".to_owned(), net: net("10.7.0.1/16"), resolver, ..Plan::of_the_host() };
        assert_eq!(Plan::set(&settings).unwrap(), expected);
    }
}
