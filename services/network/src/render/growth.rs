//! From rules that hold to others. Of what it takes away the kernel waits until no packet can be on its way by it any more,
//! some 20 ms and all others with it; what is added is there at once. So guests and ports are added where that is all.

use std::collections::HashSet;
use std::fmt::Write;
use std::hash::Hash;

use super::{Guest, Ruleset};
use crate::plan::Plan;

/// The text for `nft -f -` that makes these rules of those that are loaded, where all that it does is to add; an empty one
/// where they hold. None where something has to go: then the whole is to be loaded.
pub fn addition(loaded: &Ruleset, rules: &Ruleset, plan: &Plan) -> Option<String> {
    let same = (&loaded.host, loaded.resolver) == (&rules.host, rules.resolver);
    let guests = added(&loaded.guests, &rules.guests)?;
    let publications = added(&loaded.publications, &rules.publications)?;
    if !same {
        return None;
    }
    let mut text = String::new();
    let published: Vec<_> = publications.iter().map(|publication| publication.element(plan)).collect();
    push(&mut text, "bridge", "guests", &guests.iter().map(|guest| guest.element()).collect::<Vec<_>>());
    push(&mut text, "ip", "reach", &guests.iter().map(|guest| Guest::reach_element(guest)).collect::<Vec<_>>());
    push(&mut text, "ip", "published", &published);
    Some(text)
}

/// What the second has besides all of the first; none if it lacks something.
fn added<'a, T: Eq + Hash>(first: &[T], second: &'a [T]) -> Option<Vec<&'a T>> {
    let (old, new): (HashSet<&T>, HashSet<&T>) = (first.iter().collect(), second.iter().collect());
    old.is_subset(&new).then(|| second.iter().filter(|one| !old.contains(one)).collect())
}

fn push(text: &mut String, family: &str, set: &str, elements: &[String]) {
    if !elements.is_empty() {
        let _ = writeln!(text, "add element {family} banger {set} {{ {} }}", elements.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Protocol, Publication, Reach};
    use std::net::{Ipv4Addr, SocketAddrV4};

    fn guest(vm: &str, last: u8, reach: Reach) -> Guest {
        let address = Ipv4Addr::new(172, 16, 0, last);
        Guest { vm: vm.parse().unwrap(), mac: [2, 0, 0, 0, 0, last], address, reach }
    }

    fn rules(guests: &[&Guest]) -> Ruleset {
        Ruleset { guests: guests.iter().map(|guest| (*guest).clone()).collect(), ..Ruleset::default() }
    }

    #[test]
    fn who_comes_is_added_and_nothing_is_done_for_who_is_there() {
        let (a, b) = (guest("aaaaaaaaaa", 2, Reach::Internet), guest("bbbbbbbbbb", 3, Reach::Nothing));
        let plan = Plan::rootless();
        let web = Publication {
            protocol: Protocol::Tcp,
            outside: SocketAddrV4::new(Ipv4Addr::new(127, 77, 0, 5), 3000),
            internal: 20000,
            guest: SocketAddrV4::new(b.address, 80),
        };
        let more = Ruleset { publications: vec![web], ..rules(&[&b, &a]) };
        assert_eq!(
            addition(&rules(&[&a]), &more, &plan).unwrap(),
            "add element bridge banger guests { \"bg-bbbbbbbbbb\" . 02:00:00:00:00:03 . 172.16.0.3 }\n\
             add element ip banger reach { 172.16.0.3 : goto nothing }\n\
             add element ip banger published { tcp . 20000 : 172.16.0.3 . 80 }\n"
        );
        assert_eq!(addition(&more, &more, &plan).unwrap(), "");
        let on_a_host = addition(&rules(&[&a, &b]), &more, &Plan::of_the_host());
        assert_eq!(
            on_a_host.unwrap(),
            "add element ip banger published { 127.77.0.5 . tcp . 3000 : 172.16.0.3 . 80 }\n"
        );
    }

    #[test]
    fn whatever_is_taken_away_or_becomes_another_is_loaded_anew() {
        let (a, b) = (guest("aaaaaaaaaa", 2, Reach::Internet), guest("bbbbbbbbbb", 3, Reach::Nothing));
        let barred = Guest { reach: Reach::Nothing, ..a.clone() };
        let plan = Plan::of_the_host();
        let resolver = Ruleset { resolver: Some(Ipv4Addr::LOCALHOST), ..rules(&[&a]) };
        let host = Ruleset { host: vec![Ipv4Addr::LOCALHOST], ..rules(&[&a]) };
        for other in [rules(&[&b]), rules(&[&barred]), rules(&[]), resolver, host] {
            assert_eq!(addition(&rules(&[&a]), &other, &plan), None);
        }
    }
}
