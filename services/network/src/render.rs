//! Policy as the text of nftables: one table for frames, one for packets, both named `banger`. Pure; knows no process.
//!
//! The text replaces its predecessor in one transaction; [`addition`] is how rules that hold become more. A guest is named by its TAP, MAC and address together; what
//! matches no guest is dropped, so a TAP without rules is a TAP without a network. Guests are kept from each other by
//! their ports' `isolated` flag, which no flushed table opens; these rules only repeat it for routed packets.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};

use banger_bus::settings::NOBODYS;
use banger_schemas::VmId;
use banger_schemas::network::mac_text;

use crate::plan::{Plan, UPLINK, UPLINK_ADDRESS, UPLINK_NETWORK, Uplink};

mod growth;

pub use growth::addition;

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

impl Publication {
    /// As the map `published` of this plan has it.
    fn element(&self, plan: &Plan) -> String {
        let (protocol, outside, guest) = (self.protocol, self.outside, self.guest);
        let key = match plan.uplink {
            Uplink::Slirp => format!("{protocol} . {}", self.internal),
            Uplink::Host => format!("{} . {protocol} . {}", outside.ip(), outside.port()),
        };
        format!("{key} : {} . {}", guest.ip(), guest.port())
    }
}

/// What a guest may open connections to. The host and link-local addresses are in none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guest {
    pub vm: VmId,
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    pub reach: Reach,
}

impl Guest {
    /// As the set `guests` has it.
    fn element(&self) -> String {
        format!("\"{}\" . {} . {}", self.vm.tap_name(), mac_text(self.mac), self.address)
    }

    /// As the map `reach` has it.
    fn reach_element(&self) -> String {
        format!("{} : goto {}", self.address, self.reach.chain())
    }
}

/// All rules of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub guests: Vec<Guest>,
    /// The host's addresses other than loopback. On a host itself the kernel knows them.
    pub host: Vec<Ipv4Addr>,
    /// Who answers, on a host, what guests ask their gateway about names.
    pub resolver: Option<Ipv4Addr>,
    pub publications: Vec<Publication>,
}

impl Ruleset {
    /// The whole text for `nft -f -`. Equal rules in another order make the same text.
    pub fn render(&self, plan: &Plan) -> String {
        let mut text = remove();
        self.frames(&mut text);
        self.packets(plan, &mut text);
        text
    }

    fn frames(&self, text: &mut String) {
        text.push_str("table bridge banger {\n");
        push_set(text, "set guests", "ifname . ether_addr . ipv4_addr", self.guests.iter().map(Guest::element));
        text.push_str(
            r#"	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname "bg-*" goto from_guest
	}
	chain from_guest {
		ether type ip iifname . ether saddr . ip saddr @guests accept
		ether type arp iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
		drop
	}
}
"#,
        );
    }

    fn packets(&self, plan: &Plan, text: &mut String) {
        text.push_str("table ip banger {\n");
        push_set(text, "map reach", "ipv4_addr : verdict", self.guests.iter().map(Guest::reach_element));
        match plan.uplink {
            Uplink::Slirp => self.behind_slirp(plan, text),
            Uplink::Host => self.on_the_host(plan, text),
        }
        let guests = plan.net.trunc().to_string();
        let own: &[&str] = match plan.uplink {
            Uplink::Slirp => &[&guests, UPLINK_NETWORK],
            Uplink::Host => &[&guests],
        };
        // Whatever the policy: this host in all its disguises, the metadata services of clouds, and banger's own.
        let never: Vec<String> =
            NOBODYS.iter().map(ToString::to_string).chain(own.iter().map(ToString::to_string)).collect();
        let (never, private) = (never.join(", "), PRIVATE.join(", "));
        let _ = write!(
            text,
            r#"	chain nothing {{
		reject with icmp admin-prohibited
	}}
	chain internet {{
		jump names
		ip daddr {{ {private} }} reject with icmp admin-prohibited
		goto networks
	}}
	chain networks {{
		jump names
		ip daddr {{ {never} }} reject with icmp admin-prohibited
		accept
	}}
}}
"#
        );
    }

    /// Chains where packets leave by slirp4netns, and publications come in through it. Only a reply is let through for
    /// being one: a connection that a guest opened is looked at with every packet, so a narrower policy ends it.
    fn behind_slirp(&self, plan: &Plan, text: &mut String) {
        let published = self.publications.iter().map(|publication| publication.element(plan));
        push_set(text, "set host", "ipv4_addr", self.host.iter().map(Ipv4Addr::to_string));
        push_set(text, "map published", "inet_proto . inet_service : ipv4_addr . inet_service", published);
        let (bridge, guests, dns) = (&plan.bridge, plan.net.trunc(), plan.dns());
        let _ = write!(
            text,
            r#"	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "{UPLINK}" ip daddr {UPLINK_ADDRESS} dnat to meta l4proto . th dport map @published
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname "{UPLINK}" ip saddr {guests} masquerade
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		iifname {{ "{bridge}", "{UPLINK}" }} drop
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" goto from_guest
		oifname "{bridge}" goto to_guest
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
	chain names {{
		ip daddr {dns} meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr @host reject with icmp admin-prohibited
	}}
"#
        );
    }

    /// Chains where the host itself routes. Its own addresses are no forwarded packet's: they meet `input`.
    fn on_the_host(&self, plan: &Plan, text: &mut String) {
        let published = self.publications.iter().map(|publication| publication.element(plan));
        let kind = "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service";
        push_set(text, "map published", kind, published);
        let (bridge, guests, gateway) = (&plan.bridge, plan.net.trunc(), plan.gateway());
        let resolver = self.resolver.map_or(String::new(), |resolver| {
            format!("\n\t\tiifname \"{bridge}\" ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 dnat to {resolver}")
        });
        let _ = write!(
            text,
            r#"	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;{resolver}
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		ip daddr {guests} dnat to ip daddr . meta l4proto . th dport map @published
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {guests} oifname != "{bridge}" masquerade
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname != "{bridge}" accept
		ct state established,related ct direction reply accept
		ct status dnat ct original ip daddr {gateway} th dport 53 accept
		reject with icmp admin-prohibited
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" goto from_guest
		oifname "{bridge}" goto to_guest
	}}
	chain to_guest {{
		ct state established,related accept
		drop
	}}
	chain from_guest {{
		ct state established,related ct direction reply accept
		oifname "{bridge}" drop
		ip saddr vmap @reach
		drop
	}}
	chain names {{
		ct status dnat ct original ip daddr {gateway} accept
	}}
"#
        );
    }
}

/// The text that takes all rules away. A table that is named first may be deleted whether it was there or not.
pub fn remove() -> String {
    ["bridge", "ip"].map(|family| format!("table {family} banger\ndelete table {family} banger\n")).concat()
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
            resolver: Some(Ipv4Addr::new(192, 0, 2, 53)),
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
        let (rootless, host, none) = (Plan::rootless(), Plan::of_the_host(), Ruleset::default());
        assert_eq!(rules().render(&rootless), include_str!("render/two-guests.nft"));
        assert_eq!(none.render(&rootless), include_str!("render/closed.nft"));
        assert_eq!(rules().render(&host), include_str!("render/two-guests-on-a-host.nft"));
        assert_eq!(none.render(&host), include_str!("render/closed-on-a-host.nft"));
    }

    #[test]
    fn order_changes_nothing() {
        let mut other = rules();
        other.guests.reverse();
        other.guests.push(other.guests[0].clone());
        for plan in [Plan::rootless(), Plan::of_the_host()] {
            assert_eq!(other.render(&plan), rules().render(&plan));
        }
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
        let text = Ruleset { guests, publications, ..Ruleset::default() }.render(&Plan::rootless());
        assert!(text.len() < banger_schemas::codec::MAX_MESSAGE - 1000, "{}", text.len());
    }
}
