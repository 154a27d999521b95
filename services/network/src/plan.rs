//! What a network looks like: its bridge, its addresses, and how it goes out. Pure.

use std::net::Ipv4Addr;

use banger_schemas::network::BRIDGE;

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
    /// The bridge's own address, the guests' gateway.
    pub gateway: Ipv4Addr,
    /// Length of the guests' network prefix.
    pub prefix: u8,
    pub uplink: Uplink,
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

    /// The network of a host, as it is where nothing else is configured.
    pub fn of_the_host() -> Self {
        let gateway = Ipv4Addr::new(172, 16, 0, 1);
        Plan { bridge: BRIDGE.to_owned(), gateway, prefix: 24, uplink: Uplink::Host }
    }

    /// The guests' network, as it is written.
    pub fn network(&self) -> String {
        format!("{}/{}", Ipv4Addr::from_bits(self.gateway.to_bits() & self.mask()), self.prefix)
    }

    /// First and last address that a guest may have; the gateway's may be among them.
    pub fn guests(&self) -> (Ipv4Addr, Ipv4Addr) {
        let (first, last) = (self.gateway.to_bits() & self.mask(), self.gateway.to_bits() | !self.mask());
        (Ipv4Addr::from_bits(first.saturating_add(1)), Ipv4Addr::from_bits(last.saturating_sub(1)))
    }

    /// Whether another network has addresses of this one.
    pub fn overlaps(&self, address: Ipv4Addr, prefix: u8) -> bool {
        let mask = mask(prefix.min(self.prefix));
        address.to_bits() & mask == self.gateway.to_bits() & mask
    }

    /// Whom guests ask for names. At the gateway of a host there is no name server: its rules lead on to one.
    pub fn dns(&self) -> Ipv4Addr {
        match self.uplink {
            Uplink::Slirp => UPLINK_DNS,
            Uplink::Host => self.gateway,
        }
    }

    fn mask(&self) -> u32 {
        mask(self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_which_addresses_there_are() {
        let plan = Plan { prefix: 20, gateway: Ipv4Addr::new(10, 1, 17, 1), ..Plan::rootless() };
        assert_eq!(plan.network(), "10.1.16.0/20");
        assert_eq!(plan.guests(), (Ipv4Addr::new(10, 1, 16, 1), Ipv4Addr::new(10, 1, 31, 254)));
        assert_eq!(Plan::rootless().network(), "172.16.0.0/24");
    }

    #[test]
    fn networks_overlap_where_one_holds_the_other() {
        let plan = Plan::of_the_host();
        assert!(plan.overlaps(Ipv4Addr::new(172, 16, 0, 77), 32));
        assert!(plan.overlaps(Ipv4Addr::new(172, 16, 3, 1), 16));
        assert!(!plan.overlaps(Ipv4Addr::new(172, 17, 0, 1), 16));
        assert!(plan.overlaps(Ipv4Addr::new(1, 1, 1, 1), 0));
    }
}
