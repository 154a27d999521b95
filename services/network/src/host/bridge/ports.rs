//! TAPs on a host where others have links too: made so that a death in between leaves nothing, and told from others'.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use banger_schemas::VmId;

use super::forward;
use crate::host::links::{Link, Links};
use crate::host::{Error, tap};

/// An isolated port of the bridge, down, that goes with its descriptor until it is kept. One of this name that is there
/// and ours is opened.
pub(super) async fn make(links: &Links, name: &str, bridge: &str) -> Result<OwnedFd, Error> {
    let tap = tap::attach(name).map_err(|e| tap::failed(name, &e))?;
    tap::own(&tap).map_err(|e| tap::failed(name, &e))?;
    links.mark(name).await?;
    forward::without_ipv6(name)?;
    links.isolated(name, bridge).await?;
    Ok(tap)
}

/// Makes ports of a new bridge of the TAPs that lost their old one.
pub(super) async fn rejoin(links: &Links, bridge: &str) -> Result<Vec<String>, Error> {
    let mut mended = Vec::new();
    for link in links.all().await?.iter().filter(|link| link.ours && link.bridge.is_none()) {
        if tap::vm_of(&link.name).is_some() {
            links.isolated_port(&link.name, bridge).await?;
            mended.push(format!("{} is a port of {bridge} again", link.name));
        }
    }
    Ok(mended)
}

/// Removes what classification finds stale.
pub(super) async fn sweep(links: &Links, known: &BTreeSet<VmId>) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for link in links.all().await? {
        let name = &link.name;
        match classify(&link, known) {
            Found::Other | Found::Known => {}
            Found::Stale => {
                links.remove(name).await?;
                found.push(format!("{name} is of no VM that is known, and is removed"));
            }
            Found::Used => {
                found.push(format!("{name} is of no VM that is known, but somebody uses it: it stays (ip link)"));
            }
            Found::Foreign => {
                found.push(format!("{name} is not banger's, though its name looks so: it is left alone"));
            }
        }
    }
    Ok(found)
}

/// Takes the bridge and all TAPs away.
pub(super) async fn remove_all(links: &Links, bridge: &str) -> Result<Vec<String>, Error> {
    let mut undone = Vec::new();
    for link in links.all().await?.iter().filter(|link| link.ours) {
        if (link.name == bridge || tap::vm_of(&link.name).is_some()) && links.remove(&link.name).await? {
            undone.push(format!("the link {} is gone", link.name));
        }
    }
    Ok(undone)
}

/// What a link is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// None of our business.
    Other,
    Known,
    /// Ours, of no VM that is known, and nobody at its other end.
    Stale,
    /// The same, but somebody holds it: a VM whose record was lost, and which works.
    Used,
    /// Somebody else's that is named like ours.
    Foreign,
}

fn classify(link: &Link, known: &BTreeSet<VmId>) -> Found {
    match (tap::vm_of(&link.name), link.ours, link.carrier) {
        (None, ..) => Found::Other,
        (Some(_), false, _) => Found::Foreign,
        (Some(vm), true, _) if known.contains(&vm) => Found::Known,
        (Some(_), true, true) => Found::Used,
        (Some(_), true, false) => Found::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_unknown_and_unused_is_stale() {
        let known = BTreeSet::from(["aaaaaaaaaa".parse().unwrap()]);
        let found = |name: &str, ours, carrier| {
            let link = Link { index: 7, name: name.to_owned(), ours, bridge: None, up: true, carrier };
            classify(&link, &known)
        };
        assert_eq!(found("bg-aaaaaaaaaa", true, false), Found::Known);
        assert_eq!(found("bg-aaaaaaaaaa", false, true), Found::Foreign);
        assert_eq!(found("bg-bbbbbbbbbb", true, false), Found::Stale);
        assert_eq!(found("bg-bbbbbbbbbb", true, true), Found::Used);
        assert_eq!(found("bg-bbbbbbbbbb", false, false), Found::Foreign);
        for name in ["bg-warm0", "br-banger", "eth0", "bg-"] {
            assert_eq!(found(name, true, false), Found::Other);
        }
    }
}
