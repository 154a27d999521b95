//! Policy as the text of nftables: one table for frames, one for packets, both named `banger`. Pure; knows no process.
//!
//! The text replaces its predecessor in one transaction. A guest is named by its TAP, MAC and address together; what
//! matches no guest is dropped, so a TAP without rules is a TAP without a network. Guests are kept from each other by
//! their ports' `isolated` flag, which no flushed table opens; these rules only repeat it for routed packets.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};

use banger_schemas::VmId;
use banger_schemas::network::mac_text;

/// The bridge that all TAPs are ports of.
pub const BRIDGE: &str = "br-banger";
/// The bridge's own address, the guests' gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Length of the guests' network prefix.
pub const PREFIX: u8 = 24;
/// The guests' network.
const GUESTS: &str = "172.16.0.0/24";
/// What guests are told to use, and the uplink's too, so that nothing is fragmented on the way.
pub const MTU: u16 = 1500;

/// The uplink's device in a user's own namespace, and the fixed addresses at slirp4netns: its network, the
/// namespace's end of it, its resolver.
pub const UPLINK: &str = "tap0";
const UPLINK_NETWORK: &str = "10.0.2.0/24";
pub const UPLINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Nobody's business, whatever the policy: this host in all its disguises, link-local (the metadata services of
/// clouds), multicast and reserved space.
const NEVER: [&str; 7] =
    ["0.0.0.0/8", UPLINK_NETWORK, "127.0.0.0/8", "169.254.0.0/16", GUESTS, "224.0.0.0/4", "240.0.0.0/4"];
/// RFC 1918 and RFC 6598.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"];

/// A transport that ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A guest's port, reachable from this host at a loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Publication {
    pub protocol: Protocol,
    /// Where the host listens.
    pub outside: SocketAddrV4,
    /// The port on the namespace's address in between; one publication each.
    pub internal: u16,
    /// Where it leads.
    pub guest: SocketAddrV4,
}

/// What a guest may open connections to. The host and link-local addresses are in none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nothing, not even DNS.
    Nothing,
    /// DNS and public addresses.
    #[default]
    Internet,
    /// DNS, public and private addresses.
    Networks,
}

impl Reach {
    fn chain(self) -> &'static str {
        match self {
            Reach::Nothing => "nothing",
            Reach::Internet => "internet",
            Reach::Networks => "networks",
        }
    }
}

/// A guest as the rules know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    pub vm: VmId,
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    pub reach: Reach,
}

/// All rules of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub guests: Vec<Guest>,
    /// The host's addresses other than loopback.
    pub host: Vec<Ipv4Addr>,
    pub publications: Vec<Publication>,
}

impl Ruleset {
    /// The whole text for `nft -f -`. Equal rules in another order make the same text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // A table that is named first may be deleted whether it was there or not.
        for family in ["bridge", "ip"] {
            text.push_str(&format!("table {family} banger\ndelete table {family} banger\n"));
        }
        self.frames(&mut text);
        self.packets(&mut text);
        text
    }

    fn frames(&self, text: &mut String) {
        let guests =
            self.guests.iter().map(|g| format!("\"{}\" . {} . {}", g.vm.tap_name(), mac_text(g.mac), g.address));
        text.push_str("table bridge banger {\n");
        push_set(text, "set guests", "ifname . ether_addr . ipv4_addr", guests);
        let _ = write!(
            text,
            r#"	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
		iifname "bg-*" goto from_guest
	}}
	chain from_guest {{
		ether type ip iifname . ether saddr . ip saddr @guests accept
		ether type arp iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
		drop
	}}
}}
"#
        );
    }

    fn packets(&self, text: &mut String) {
        let reach = self.guests.iter().map(|g| format!("{} : goto {}", g.address, g.reach.chain()));
        let published = self
            .publications
            .iter()
            .map(|p| format!("{} . {} : {} . {}", p.protocol, p.internal, p.guest.ip(), p.guest.port()));
        text.push_str("table ip banger {\n");
        push_set(text, "set host", "ipv4_addr", self.host.iter().map(Ipv4Addr::to_string));
        push_set(text, "map reach", "ipv4_addr : verdict", reach);
        push_set(text, "map published", "inet_proto . inet_service : ipv4_addr . inet_service", published);
        text.push_str(&chains());
        text.push_str("}\n");
    }
}

/// What does not depend on the guests. Only a reply is let through for being one: a connection that a guest opened
/// is looked at with every packet, so a narrower policy ends it.
fn chains() -> String {
    let (never, private) = (NEVER.join(", "), PRIVATE.join(", "));
    format!(
        r#"	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "{UPLINK}" ip daddr {UPLINK_ADDRESS} dnat to meta l4proto . th dport map @published
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname "{UPLINK}" ip saddr {GUESTS} masquerade
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		iifname {{ "{BRIDGE}", "{UPLINK}" }} drop
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{BRIDGE}" goto from_guest
		oifname "{BRIDGE}" goto to_guest
	}}
	chain to_guest {{
		ct state established,related accept
		iifname "{UPLINK}" ct status dnat accept
		drop
	}}
	chain from_guest {{
		ct state established,related ct direction reply accept
		oifname != "{UPLINK}" drop
		ip saddr vmap @reach
		drop
	}}
	chain nothing {{
		reject with icmp admin-prohibited
	}}
	chain internet {{
		ip daddr {DNS} meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr {{ {private} }} reject with icmp admin-prohibited
		goto networks
	}}
	chain networks {{
		ip daddr {DNS} meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr @host reject with icmp admin-prohibited
		ip daddr {{ {never} }} reject with icmp admin-prohibited
		accept
	}}
"#
    )
}

/// A set or map; nft takes no empty list of elements.
fn push_set(text: &mut String, what: &str, kind: &str, elements: impl Iterator<Item = String>) {
    let mut elements: Vec<String> = elements.collect();
    elements.sort_unstable();
    elements.dedup();
    let _ = write!(text, "\t{what} {{\n\t\ttype {kind}\n");
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Ruleset {
        let guest = |vm: &str, last, reach| Guest {
            vm: vm.parse().unwrap(),
            mac: [2, 0, 0, 0, 0, last],
            address: Ipv4Addr::new(172, 16, 0, last),
            reach,
        };
        Ruleset {
            guests: vec![guest("bbbbbbbbbb", 3, Reach::Nothing), guest("aaaaaaaaaa", 2, Reach::Internet)],
            host: vec![Ipv4Addr::new(192, 0, 2, 2)],
            publications: vec![Publication {
                protocol: Protocol::Tcp,
                outside: SocketAddrV4::new(Ipv4Addr::new(127, 77, 0, 5), 3000),
                internal: 20000,
                guest: SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 2), 80),
            }],
        }
    }

    #[test]
    fn golden_text() {
        assert_eq!(rules().render(), include_str!("render/two-guests.nft"));
        assert_eq!(Ruleset::default().render(), include_str!("render/closed.nft"));
    }

    #[test]
    fn order_changes_nothing() {
        let mut other = rules();
        other.guests.reverse();
        other.guests.push(other.guests[0].clone());
        assert_eq!(other.render(), rules().render());
    }

    #[test]
    fn a_full_network_fits_into_one_packet_to_the_executor() {
        let guests = (2..=254)
            .map(|n| Guest {
                vm: VmId::from_random([n; 10]),
                mac: [2, 0, 0, 0, 0, n],
                address: Ipv4Addr::new(172, 16, 0, n),
                reach: Reach::Networks,
            })
            .collect();
        let guest = SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 254), 65000);
        let publications = (0..600)
            .map(|n| Publication { protocol: Protocol::Udp, outside: guest, internal: 20000 + n, guest })
            .collect();
        let text = Ruleset { guests, host: Vec::new(), publications }.render();
        assert!(text.len() < banger_schemas::codec::MAX_MESSAGE - 1000, "{}", text.len());
    }
}
