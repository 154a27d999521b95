//! What is known of each VM, by object path, and the names that follow from it. Pure: events in, hosts out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use banger_schemas::VmName;

use crate::zone::Hosts;

/// What a signal or a listing says of a VM; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) name: Option<VmName>,
    pub(crate) running: Option<bool>,
    /// `Some(None)`: it has no address.
    pub(crate) address: Option<Option<Ipv4Addr>>,
}

/// One thing that Vms1 said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// All VMs that there are: replaces everything.
    Listing(Vec<(String, Facts)>),
    /// A VM is there, with all its properties.
    Appeared(String, Facts),
    /// Some properties of a VM have new values.
    Changed(String, Facts),
    /// A VM is no longer there.
    Gone(String),
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    vms: BTreeMap<String, Facts>,
}

impl Facts {
    /// Takes over what `newer` says.
    fn update(&mut self, newer: Facts) {
        self.name = newer.name.or(self.name.take());
        self.running = newer.running.or(self.running);
        self.address = newer.address.or(self.address);
    }

    fn host(&self) -> Option<(VmName, Ipv4Addr)> {
        match self {
            Facts { name: Some(name), running: Some(true), address: Some(Some(address)) } => {
                Some((name.clone(), *address))
            }
            _ => None,
        }
    }
}

impl Table {
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Listing(vms) => self.vms = vms.into_iter().collect(),
            Event::Appeared(path, mut facts) => {
                // A change can overtake the announcement of its object, and then it is the newer of the two.
                if let Some(early) = self.vms.remove(&path).filter(|known| known.name.is_none()) {
                    facts.update(early);
                }
                self.vms.insert(path, facts);
            }
            Event::Changed(path, facts) => self.vms.entry(path).or_default().update(facts),
            Event::Gone(path) => drop(self.vms.remove(&path)),
        }
    }

    /// Names and addresses of the VMs that run and have an address. Names are unique among VMs; should two claim
    /// one all the same, the first path has it, so that the answer does not depend on who spoke last.
    pub(crate) fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::new();
        for (name, address) in self.vms.values().filter_map(Facts::host) {
            hosts.entry(name).or_insert(address);
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(name: &str, running: bool, last: u8) -> Facts {
        Facts {
            name: Some(name.parse().unwrap()),
            running: Some(running),
            address: Some(Some(Ipv4Addr::new(127, 1, 0, last))),
        }
    }

    fn names(table: &Table) -> Vec<String> {
        table.hosts().into_keys().map(String::from).collect()
    }

    #[test]
    fn only_running_vms_with_an_address_have_names() {
        let mut table = Table::default();
        table.apply(Event::Listing(vec![
            ("/a".into(), facts("up", true, 1)),
            ("/b".into(), facts("down", false, 2)),
            ("/c".into(), Facts { address: Some(None), ..facts("offline", true, 3) }),
            ("/d".into(), Facts { running: None, ..facts("unsaid", true, 4) }),
        ]));
        assert_eq!(names(&table), ["up"]);
        table.apply(Event::Changed("/b".into(), Facts { running: Some(true), ..Facts::default() }));
        table.apply(Event::Changed("/a".into(), Facts { running: Some(false), ..Facts::default() }));
        assert_eq!(names(&table), ["down"]);
        table.apply(Event::Gone("/b".into()));
        assert!(names(&table).is_empty());
    }

    #[test]
    fn a_change_that_overtakes_the_announcement_is_not_lost() {
        let mut table = Table::default();
        table.apply(Event::Changed("/a".into(), Facts { running: Some(true), ..Facts::default() }));
        assert!(names(&table).is_empty());
        table.apply(Event::Appeared("/a".into(), facts("box", false, 1)));
        assert_eq!(names(&table), ["box"]);
        table.apply(Event::Appeared("/a".into(), facts("box", false, 1)));
        assert!(names(&table).is_empty(), "an announcement of a known VM is news");
    }

    #[test]
    fn two_claims_to_a_name_have_one_answer() {
        let mut table = Table::default();
        table.apply(Event::Appeared("/b".into(), facts("box", true, 2)));
        table.apply(Event::Appeared("/a".into(), facts("box", true, 1)));
        assert_eq!(table.hosts().into_values().collect::<Vec<_>>(), [Ipv4Addr::new(127, 1, 0, 1)]);
    }

    fn any_facts() -> impl Strategy<Value = Facts> {
        (
            proptest::option::of("[a-c]"),
            proptest::option::of(any::<bool>()),
            proptest::option::of(proptest::option::of(any::<Ipv4Addr>())),
        )
            .prop_map(|(name, running, address)| Facts {
                name: name.map(|n| n.parse().unwrap()),
                running,
                address,
            })
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let path = || "/[a-d]";
        prop_oneof![
            proptest::collection::vec((path(), any_facts()), 0..4).prop_map(Event::Listing),
            (path(), any_facts()).prop_map(|(p, f)| Event::Appeared(p, f)),
            (path(), any_facts()).prop_map(|(p, f)| Event::Changed(p, f)),
            path().prop_map(Event::Gone),
        ]
    }

    proptest! {
        #[test]
        fn a_listing_forgets_all_that_was_before(
            before in proptest::collection::vec(any_event(), 0..20),
            listing in proptest::collection::vec(("/[a-d]", any_facts()), 0..4),
            after in proptest::collection::vec(any_event(), 0..20),
        ) {
            let (mut old, mut new) = (Table::default(), Table::default());
            before.into_iter().for_each(|e| old.apply(e));
            for table in [&mut old, &mut new] {
                table.apply(Event::Listing(listing.clone()));
                after.iter().cloned().for_each(|e| table.apply(e));
            }
            prop_assert_eq!(old.hosts(), new.hosts());
        }

        #[test]
        fn what_is_gone_has_no_name(
            events in proptest::collection::vec(any_event(), 0..20),
        ) {
            let mut table = Table::default();
            events.into_iter().for_each(|e| table.apply(e));
            ["/a", "/b", "/c", "/d"].into_iter().for_each(|p| table.apply(Event::Gone(p.into())));
            prop_assert!(table.hosts().is_empty());
        }
    }
}
