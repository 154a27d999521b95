//! What every host promises, the real one and the fake.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use banger_network::host::{Change, Error, Host};
use banger_network::render::{Protocol, Publication, Reach, Ruleset};

use super::network::{guest, vm};

/// Runs through a host's whole life; ends as it began.
pub(crate) async fn holds(host: &dyn Host) {
    let (vm_a, vm_b) = (vm("aaaaaaaaaa"), vm("bbbbbbbbbb"));
    let guest_a = guest(&vm_a, 2, Reach::Internet);
    let address = Ipv4Addr::new(127, 77, 1, 9);
    let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
    let outside = SocketAddrV4::new(address, port);
    let to = SocketAddrV4::new(guest_a.address, 80);
    let web = Publication { protocol: Protocol::Tcp, outside, internal: 20000, guest: to };
    let rules = Ruleset { guests: vec![guest_a], publications: vec![web], ..Ruleset::default() };

    for life in 0..2 {
        host.probe().await.unwrap();
        // Before: questions have an answer, undoing is done, and doing is refused.
        assert_eq!(host.taps().await.unwrap(), []);
        assert_eq!(host.published().await.unwrap(), []);
        assert!(!host.remove_tap(&vm_a).await.unwrap());
        assert!(!host.unpublish(Protocol::Tcp, outside).await.unwrap());
        host.lost().await.unwrap();
        assert!(matches!(host.add_tap(&vm_a).await, Err(Error::NoNamespace)));
        assert!(matches!(host.apply(&rules).await, Err(Error::NoNamespace)));
        assert!(matches!(host.publish(&web).await, Err(Error::Uplink(_))));

        let first = host.ensure().await.unwrap();
        assert_eq!((first.namespace, first.uplink), (Change::Made, Change::Made), "life {life}");
        assert!(first.returned.is_empty() && first.lost.is_empty() && !first.taps_are_dead());
        let second = host.ensure().await.unwrap();
        assert_eq!((second.namespace, second.uplink), (Change::Kept, Change::Kept));

        drop(host.add_tap(&vm_a).await.unwrap());
        let _tap = host.add_tap(&vm_b).await.unwrap();
        drop(host.add_tap(&vm_a).await.unwrap());
        let mut taps = host.taps().await.unwrap();
        taps.sort();
        assert_eq!(taps, [vm_a.clone(), vm_b.clone()]);
        host.apply(&rules).await.unwrap();
        host.publish(&web).await.unwrap();
        host.publish(&web).await.unwrap();
        assert_eq!(host.published().await.unwrap(), [(Protocol::Tcp, outside)]);
        assert!(host.unpublish(Protocol::Tcp, outside).await.unwrap());
        assert!(!host.unpublish(Protocol::Tcp, outside).await.unwrap());
        host.publish(&web).await.unwrap();
        assert!(host.remove_tap(&vm_a).await.unwrap());
        assert!(!host.remove_tap(&vm_a).await.unwrap());
        host.down().await.unwrap();
        host.down().await.unwrap();
    }
}
