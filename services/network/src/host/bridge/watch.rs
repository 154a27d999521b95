//! Hears of everything that somebody else does to what we rely on: our tables, the bridge, forwarding, and the places in
//! other firewalls. Nothing is polled.

use std::io;

use banger_bus::netlink::{Listener, Message, integer, text};
use futures_util::future::select;
use nix::libc;
use std::pin::pin;

/// linux/netfilter/nfnetlink.h and nf_tables.h: the subsystem is the upper byte, the message the lower.
const NFTABLES: u16 = 10 << 8;
const NEWTABLE: u16 = NFTABLES;
const NEWRULE: u16 = NFTABLES + 6;
const DELRULE: u16 = NFTABLES + 8;
const NEWSETELEM: u16 = NFTABLES + 12;
const DELSETELEM: u16 = NFTABLES + 14;
/// The end of a transaction.
const NEWGEN: u16 = NFTABLES + 15;
/// struct nfgenmsg; the table is attribute 1 of all, a rule's chain is 2.
const NFGENMSG: usize = 4;
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
/// struct ifinfomsg, netconfmsg.
const IFINFOMSG: usize = 16;
const NETCONFMSG: usize = 4;

/// Both subscriptions.
#[derive(Debug)]
pub(super) struct Watch {
    bridge: String,
    rules: Listener,
    links: Listener,
}

impl Watch {
    pub(super) fn open(bridge: &str) -> io::Result<Self> {
        Ok(Watch { bridge: bridge.to_owned(), rules: Listener::rules()?, links: Listener::links()? })
    }

    /// Whether something has changed since this was asked last. The kernel tells before a change's author hears of its
    /// success, so this is never behind.
    pub(super) fn stirred(&self) -> bool {
        let rules = self.rules.take();
        rules.lost | rules_changed(&rules.messages) | self.links_stirred()
    }

    /// The same, of links alone.
    pub(super) fn links_stirred(&self) -> bool {
        let links = self.links.take();
        links.lost || links.messages.iter().any(|message| link_changed(message, &self.bridge))
    }

    /// Comes back when it is worth asking.
    pub(super) async fn changed(&self) -> io::Result<()> {
        select(pin!(self.rules.stirred()), pin!(self.links.stirred())).await.factor_first().0
    }
}

/// Whether somebody else has touched our tables, or chains of theirs that may drop our packets. Our own changes replace
/// the tables as a whole, or add to their sets.
fn rules_changed(messages: &[Message]) -> bool {
    messages.split(|message| message.kind == NEWGEN).any(|transaction| {
        let is_ours = |message: &Message| text(&message.body, NFGENMSG, TABLE) == Some("banger");
        let by_us = transaction.iter().any(|message| message.kind == NEWTABLE && is_ours(message));
        transaction.iter().any(|message| match message.kind {
            NEWSETELEM => false,
            _ if is_ours(message) => !by_us,
            DELSETELEM => false,
            NEWRULE | DELRULE => text(&message.body, NFGENMSG, CHAIN).is_some_and(concerns_us),
            _ => true,
        })
    })
}

/// Chains of other firewalls that decide about forwarded packets, by the names that they all use.
fn concerns_us(chain: &str) -> bool {
    chain.to_ascii_lowercase().contains("forward") || chain == "DOCKER-USER"
}

/// Whether the bridge has gone or is down, or nothing is forwarded any more.
fn link_changed(message: &Message, bridge: &str) -> bool {
    let body = &message.body;
    let named = || text(body, IFINFOMSG, libc::IFLA_IFNAME) == Some(bridge);
    match message.kind {
        libc::RTM_DELLINK => body.first() == Some(&0) && named(),
        libc::RTM_NEWLINK => {
            let up = body.get(8).is_some_and(|flags| i32::from(*flags) & libc::IFF_UP != 0);
            !up && named()
        }
        // linux/netconf.h: RTM_NEWNETCONF; NETCONFA_IFINDEX is all links, NETCONFA_FORWARDING off.
        80 => integer(body, NETCONFMSG, 1) == Some(-1) && integer(body, NETCONFMSG, 2) == Some(0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, table: &str, chain: &str) -> Message {
        let mut body = vec![0; NFGENMSG];
        for (kind, text) in [(TABLE, table), (CHAIN, chain)] {
            body.extend(u16::try_from(5 + text.len()).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(text.as_bytes());
            body.push(0);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        Message { kind, body }
    }

    #[test]
    fn a_flush_is_heard_and_our_own_change_is_not() {
        let deltable = || message(NFTABLES + 2, "banger", "");
        let end = || message(NEWGEN, "", "");
        assert!(rules_changed(&[message(DELRULE, "banger", "forward"), deltable(), end()]));
        assert!(rules_changed(&[message(DELSETELEM, "banger", ""), end()]));
        let ours = [deltable(), message(NEWTABLE, "banger", ""), message(NEWRULE, "banger", "forward"), end()];
        assert!(!rules_changed(&ours));
        assert!(rules_changed(&[&ours[..], &[deltable(), end()]].concat()), "one after the other");
        assert!(!rules_changed(&[message(NEWSETELEM, "banger", ""), end()]), "a guest more");
        assert!(!rules_changed(&[end()]) && !rules_changed(&[]));
    }

    #[test]
    fn of_others_only_what_may_drop_our_packets_is_heard() {
        let alone = |message| rules_changed(&[message]);
        assert!(alone(message(DELRULE, "filter", "DOCKER-USER")) && alone(message(NEWRULE, "filter", "FORWARD")));
        assert!(
            alone(message(DELRULE, "filter", "ufw-user-forward"))
                && alone(message(NEWRULE, "firewalld", "filter_FORWARD"))
        );
        assert!(alone(message(NFTABLES + 3, "filter", "FORWARD")));
        assert!(!alone(message(NEWRULE, "f2b", "INPUT")) && !alone(message(NEWSETELEM, "crowdsec", "")));
    }
}
