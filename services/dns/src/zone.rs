//! The zone `vm` at one moment, and its answers. Pure and immutable: a change makes the next generation.
//!
//! A VM has exactly one name, `NAME.vm`. Names below it (`x.NAME.vm`) do not exist: they answer NXDOMAIN, so that
//! nobody takes a guest's web origin for several.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use banger_schemas::VmName;
use banger_schemas::dns::ZONE;
use hickory_server::proto::rr::{LowerName, RecordType};

/// Addresses by name.
pub(crate) type Hosts = BTreeMap<VmName, Ipv4Addr>;

/// All names that are served. The default is the empty zone of generation 0.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    generation: u32,
    hosts: Hosts,
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A VM's address.
    Address(Ipv4Addr),
    /// The zone's own start of authority.
    Authority,
    /// The zone's name server.
    NameServer,
    /// The name exists, what was asked of it does not.
    NoData,
    /// No such name in the zone.
    NoName,
    /// Not ours to answer.
    Refused,
}

impl Zone {
    /// The zone that serves `hosts`, unless this one does.
    pub(crate) fn next(&self, hosts: Hosts) -> Option<Zone> {
        // Serial numbers wrap around (RFC 1982).
        (hosts != self.hosts).then(|| Zone { generation: self.generation.wrapping_add(1), hosts })
    }

    /// Counts changes; the serial of the zone.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn hosts(&self) -> impl ExactSizeIterator<Item = (&VmName, &Ipv4Addr)> {
        self.hosts.iter()
    }

    /// What the zone says of `kind` at `name`.
    pub(crate) fn answer(&self, name: &LowerName, kind: RecordType) -> Answer {
        let mut labels = name.iter().rev();
        if labels.next() != Some(ZONE.as_bytes()) {
            return Answer::Refused;
        }
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            // The whole list is for those who may ask for it on the bus.
            return Answer::Refused;
        }
        let Some(host) = labels.next() else { return apex(kind) };
        let known = match labels.next() {
            None => std::str::from_utf8(host).ok().and_then(|label| label.parse().ok()),
            Some(_) => None,
        };
        match known.and_then(|name: VmName| self.hosts.get(&name)) {
            // RFC 8482: ANY may be answered with any record.
            Some(address) if matches!(kind, RecordType::A | RecordType::ANY) => Answer::Address(*address),
            Some(_) => Answer::NoData,
            None => Answer::NoName,
        }
    }
}

fn apex(kind: RecordType) -> Answer {
    match kind {
        RecordType::SOA | RecordType::ANY => Answer::Authority,
        RecordType::NS => Answer::NameServer,
        _ => Answer::NoData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_server::proto::rr::Name;
    use proptest::prelude::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 7);

    fn zone() -> Zone {
        Zone::default().next(Hosts::from([("box".parse().unwrap(), ADDRESS)])).unwrap()
    }

    fn ask(name: &str, kind: RecordType) -> Answer {
        zone().answer(&LowerName::from(Name::from_ascii(name).unwrap()), kind)
    }

    #[test]
    fn a_name_has_its_address_in_any_case_and_nothing_else() {
        for name in ["box.vm.", "BOX.vm.", "bOx.VM.", "box.vm"] {
            assert_eq!(ask(name, RecordType::A), Answer::Address(ADDRESS), "{name}");
        }
        assert_eq!(ask("box.vm.", RecordType::ANY), Answer::Address(ADDRESS));
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::SOA, RecordType::NS, RecordType::TXT] {
            assert_eq!(ask("box.vm.", kind), Answer::NoData);
        }
    }

    #[test]
    fn other_names_of_the_zone_do_not_exist() {
        for name in ["other.vm.", "x.box.vm.", "box.box.vm.", "*.vm.", "vm.vm.", "b_x.vm."] {
            assert_eq!(ask(name, RecordType::A), Answer::NoName, "{name}");
            assert_eq!(ask(name, RecordType::AAAA), Answer::NoName, "{name}");
        }
    }

    #[test]
    fn the_apex_has_authority_and_name_server() {
        assert_eq!(ask("vm.", RecordType::SOA), Answer::Authority);
        assert_eq!(ask("VM.", RecordType::ANY), Answer::Authority);
        assert_eq!(ask("vm.", RecordType::NS), Answer::NameServer);
        assert_eq!(ask("vm.", RecordType::A), Answer::NoData);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for name in [".", "example.org.", "box.", "vm.box.", "box.vm.org.", "xvm.", "7.0.64.127.in-addr.arpa."] {
            assert_eq!(ask(name, RecordType::A), Answer::Refused, "{name}");
        }
        assert_eq!(ask("vm.", RecordType::AXFR), Answer::Refused);
    }

    #[test]
    fn the_generation_counts_changes_and_only_changes() {
        let first = zone();
        assert_eq!(first.generation(), 1);
        assert_eq!(first.next(first.hosts.clone()), None);
        assert_eq!(first.next(Hosts::new()).unwrap().generation(), 2);
        assert_eq!(Zone::default().next(Hosts::new()), None);
    }

    proptest! {
        #[test]
        fn any_name_has_an_answer_and_only_served_ones_an_address(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6),
            kind in any::<u16>(),
        ) {
            let name = LowerName::from(Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap());
            let answer = zone().answer(&name, RecordType::from(kind));
            prop_assert!(!matches!(answer, Answer::Address(_)) || name.to_string() == "box.vm.");
            prop_assert!(answer == Answer::Refused || labels.last().is_some_and(|l| l.eq_ignore_ascii_case(b"vm")));
        }

        #[test]
        fn a_served_name_is_found_and_no_other(hosts in proptest::collection::btree_map("[a-d]{1,2}", any::<Ipv4Addr>(), 0..8), asked in "[a-d]{1,2}") {
            let hosts: Hosts = hosts.into_iter().map(|(n, a)| (n.parse().unwrap(), a)).collect();
            let expected = hosts.get(&asked.parse().unwrap()).map_or(Answer::NoName, |a| Answer::Address(*a));
            let zone = Zone { generation: 0, hosts };
            let name = LowerName::from(Name::from_ascii(format!("{asked}.vm.")).unwrap());
            prop_assert_eq!(zone.answer(&name, RecordType::A), expected);
        }
    }
}
