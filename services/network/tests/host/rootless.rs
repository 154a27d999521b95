//! The network without privilege: as whoever runs the tests.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::time::Duration;

use crate::network::{Network, guest, soon, vm};
use crate::pretend::{Place, Pretend, ask_who_has, dial_from, hears_arp_from, probe_inside, read_from};
use banger_network::host::{Change, Error, Fake, Host, address};
use banger_network::plan::Plan;
use banger_network::render::{self, Protocol, Publication, Reach, Ruleset};
use tokio::time::timeout;

/// Answers every connection with a text, on a thread that ends with the tests.
fn listen_on_host(address: Ipv4Addr, text: &'static str) -> SocketAddrV4 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(text.as_bytes());
        }
    });
    SocketAddrV4::new(address, port)
}

/// A free port of a loopback address.
fn publication(outside: Ipv4Addr, internal: u16, to: SocketAddrV4) -> Publication {
    let port = TcpListener::bind((outside, 0)).unwrap().local_addr().unwrap().port();
    Publication { protocol: Protocol::Tcp, outside: SocketAddrV4::new(outside, port), internal, guest: to }
}

#[tokio::test]
async fn the_real_host_keeps_the_contract() {
    let Some(network) = Network::prepare().await else { return };
    crate::contract::holds(&network.host).await;
    network.host.ensure().await.unwrap();
    network.down().await;
}

#[tokio::test]
async fn the_fake_host_keeps_the_same_contract() {
    crate::contract::holds(&Fake::default()).await;
}

#[tokio::test]
async fn a_refusal_is_named() {
    let Some(network) = Network::up().await else { return };
    let none = "unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; $SELF'";
    assert_eq!(probe_inside(&network, none), "UserNamespacesRefused(Maximum)");
    let no_device = "unshare -Urm sh -c 'mount -t tmpfs none /dev/net; $SELF'";
    assert_eq!(probe_inside(&network, no_device), "DevTunMissing { errno: 2 }");
    network.down().await;
}

#[tokio::test]
async fn a_guest_reaches_the_outside_and_never_this_host() {
    let Some(network) = Network::up().await else { return };
    let Some(outer) = address::of_this_host().unwrap().first().copied() else {
        println!("SKIPPED: this machine has no address but loopback");
        return network.down().await;
    };
    let (outside, loopback) = (listen_on_host(outer, "outside"), listen_on_host(Ipv4Addr::LOCALHOST, "secret"));
    let guest_a = guest(&vm("aaaaaaaaaa"), 2, Reach::Networks);
    let mut rules = Ruleset { guests: vec![guest_a.clone()], ..Ruleset::default() };
    network.host.apply(&rules).await.unwrap();
    let a = Pretend::new(&network, &guest_a);

    assert_eq!(a.dial(outside).as_deref(), Ok("outside"));
    for disguise in ["10.0.2.2", "10.0.2.3", "10.0.2.100", "172.16.0.1", "127.0.0.1", "0.0.0.0", "169.254.169.254"] {
        assert!(a.dial(format!("{disguise}:{}", loopback.port())).is_err(), "{disguise}");
    }
    // The uplink refuses by itself, without any rule.
    assert!(dial_from(&network, format!("10.0.2.2:{}", loopback.port())).is_err());

    // The host's other addresses are refused as soon as they are told.
    rules.host = address::of_this_host().unwrap();
    network.host.apply(&rules).await.unwrap();
    assert!(a.dial(outside).is_err());
    rules.host.clear();
    rules.guests[0].reach = Reach::Nothing;
    network.host.apply(&rules).await.unwrap();
    assert!(a.dial(outside).is_err());
    // And a guest that the rules do not know has no network.
    network.host.apply(&Ruleset::default()).await.unwrap();
    assert!(a.dial(outside).is_err());
    drop(a);
    network.down().await;
}

#[tokio::test]
async fn a_published_port_reaches_the_guest_and_survives_the_uplink() {
    let Some(network) = Network::up().await else { return };
    let guest_a = guest(&vm("aaaaaaaaaa"), 2, Reach::Internet);
    let web = publication(Ipv4Addr::new(127, 77, 1, 5), 20000, SocketAddrV4::new(guest_a.address, 80));
    let rules = Ruleset { guests: vec![guest_a.clone()], publications: vec![web], ..Ruleset::default() };
    network.host.apply(&rules).await.unwrap();
    network.host.publish(&web).await.unwrap();
    network.host.publish(&web).await.unwrap();
    let a = Pretend::new(&network, &guest_a);
    let _server = a.serve(80, "hello");
    assert_eq!(read_from(web.outside.into()).unwrap(), "hello");

    assert!(timeout(Duration::from_millis(200), network.host.lost()).await.is_err(), "nothing is lost yet");
    let uplink = network.process("uplink.json");
    let (lost, ended) = tokio::join!(timeout(Duration::from_secs(5), network.host.lost()), uplink.end());
    lost.unwrap().unwrap();
    ended.unwrap();
    assert!(read_from(web.outside.into()).is_err());
    let ensured = network.host.ensure().await.unwrap();
    assert_eq!((ensured.namespace, ensured.uplink), (Change::Kept, Change::Remade));
    assert!(ensured.lost.is_empty() && ensured.returned == [web] && !ensured.taps_are_dead());
    soon("the port is back", || async { read_from(web.outside.into()).is_ok_and(|text| text == "hello") }).await;

    // A service that has just started knows nothing, and finds it.
    let restarted = network.restarted();
    assert_eq!(restarted.ensure().await.unwrap().uplink, Change::Kept);
    assert_eq!(restarted.published().await.unwrap(), [(Protocol::Tcp, web.outside)]);
    assert!(restarted.unpublish(Protocol::Tcp, web.outside).await.unwrap());
    assert!(!restarted.unpublish(Protocol::Tcp, web.outside).await.unwrap());
    assert!(read_from(web.outside.into()).is_err());
    drop(a);
    network.down().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let Some(network) = Network::up().await else { return };
    let taken = listen_on_host(Ipv4Addr::new(127, 77, 1, 6), "other");
    let to = SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 2), 80);
    let web = Publication { protocol: Protocol::Tcp, outside: taken, internal: 20000, guest: to };
    assert!(matches!(network.host.publish(&web).await, Err(Error::PortTaken(at)) if at == taken));
    network.down().await;
}

#[tokio::test]
async fn guests_do_not_reach_each_other_nor_pretend_to_be() {
    let Some(network) = Network::up().await else { return };
    let (guest_a, guest_b) =
        (guest(&vm("aaaaaaaaaa"), 2, Reach::Networks), guest(&vm("bbbbbbbbbb"), 3, Reach::Networks));
    let web = publication(Ipv4Addr::new(127, 77, 1, 7), 20001, SocketAddrV4::new(guest_b.address, 80));
    let guests = vec![guest_a.clone(), guest_b.clone()];
    let rules = Ruleset { guests, publications: vec![web], ..Ruleset::default() };
    // The second one comes to the first.
    network.host.apply(&Ruleset { guests: vec![guest_a.clone()], ..Ruleset::default() }).await.unwrap();
    network.host.apply(&rules).await.unwrap();
    network.host.publish(&web).await.unwrap();
    let (a, b) = (Pretend::new(&network, &guest_a), Pretend::new(&network, &guest_b));
    let _server = b.serve(80, "b");
    assert_eq!(read_from(web.outside.into()).unwrap(), "b");
    assert!(a.dial("172.16.0.3:80").is_err());
    assert!(a.dial("10.0.2.100:20001").is_err());

    let Some(outer) = address::of_this_host().unwrap().first().copied() else { return network.down().await };
    let outside = listen_on_host(outer, "outside");
    assert_eq!(a.dial(outside).as_deref(), Ok("outside"));
    drop(b);
    a.run("ip addr flush dev eth0 && ip addr add 172.16.0.3/24 dev eth0 && ip route add default via 172.16.0.1");
    assert!(a.dial(outside).is_err(), "another's address");
    a.run("ip addr flush dev eth0 && ip addr add 172.16.0.2/24 dev eth0 && ip route add default via 172.16.0.1");
    assert_eq!(a.dial(outside).as_deref(), Ok("outside"));
    a.run("ip link set eth0 down && ip link set eth0 address 02:99:99:99:99:99 && ip link set eth0 up");
    a.run("ip route replace default via 172.16.0.1");
    assert!(a.dial(outside).is_err(), "another's MAC");
    drop(a);
    network.down().await;
}

#[tokio::test]
async fn a_tap_works_from_outside_and_is_isolated() {
    let Some(network) = Network::up().await else { return };
    let (vm_a, vm_b) = (vm("aaaaaaaaaa"), vm("bbbbbbbbbb"));
    let (guest_a, guest_b) = (guest(&vm_a, 2, Reach::Internet), guest(&vm_b, 3, Reach::Internet));
    let (tap_a, tap_b) = (network.host.add_tap(&vm_a).await.unwrap(), network.host.add_tap(&vm_b).await.unwrap());
    let gateway = Plan::rootless().gateway();

    // Without rules: nothing.
    ask_who_has(&tap_a, guest_a.mac, guest_a.address, gateway);
    assert!(!hears_arp_from(&tap_a, gateway));
    let guests = vec![guest_a.clone(), guest_b.clone()];
    network.host.apply(&Ruleset { guests, ..Ruleset::default() }).await.unwrap();
    ask_who_has(&tap_a, guest_a.mac, guest_a.address, gateway);
    assert!(hears_arp_from(&tap_a, gateway));
    ask_who_has(&tap_a, guest_a.mac, guest_b.address, gateway);
    assert!(!hears_arp_from(&tap_a, gateway));
    // Even with every rule flushed, the ports are apart.
    network.run("nft flush ruleset");
    ask_who_has(&tap_a, guest_a.mac, guest_a.address, guest_b.address);
    assert!(!hears_arp_from(&tap_b, guest_a.address));
    ask_who_has(&tap_b, guest_b.mac, guest_b.address, gateway);
    assert!(hears_arp_from(&tap_b, gateway));

    assert_eq!(network.host.taps().await.unwrap(), [vm_a.clone(), vm_b.clone()]);
    assert!(matches!(network.host.add_tap(&vm_a).await, Err(Error::Op { message, .. }) if message.contains("held")));
    // It outlives its descriptor, and can be opened again.
    drop(tap_a);
    assert!(network.host.taps().await.unwrap().contains(&vm_a));
    drop(network.host.add_tap(&vm_a).await.unwrap());
    assert!(network.host.remove_tap(&vm_a).await.unwrap());
    assert!(!network.host.remove_tap(&vm_a).await.unwrap());
    assert_eq!(network.host.taps().await.unwrap(), [vm_b]);
    drop(tap_b);
    network.down().await;
}

#[tokio::test]
async fn a_dead_holder_means_everything_anew_and_is_reported() {
    let Some(network) = Network::up().await else { return };
    let again = network.restarted().ensure().await.unwrap();
    assert_eq!((again.namespace, again.uplink), (Change::Kept, Change::Kept));
    assert_eq!(again.notes, Vec::<String>::new());
    let old = (network.process("holder.json"), network.process("uplink.json"));
    let vm_a = vm("aaaaaaaaaa");
    let _tap = network.host.add_tap(&vm_a).await.unwrap();
    let rules = Ruleset { guests: vec![guest(&vm_a, 2, Reach::Internet)], ..Ruleset::default() };
    network.host.apply(&rules).await.unwrap();

    old.0.end().await.unwrap();
    assert_eq!(network.host.taps().await.unwrap(), []);
    assert!(matches!(network.host.add_tap(&vm_a).await, Err(Error::NoNamespace)));
    let ensured = network.host.ensure().await.unwrap();
    assert!(ensured.taps_are_dead() && ensured.uplink == Change::Remade);
    assert!(!old.1.alive(), "the uplink of the old namespace");
    assert!(network.run("nft list table ip banger").contains("172.16.0.2"));
    network.down().await;
}

#[tokio::test]
async fn nft_takes_the_golden_rulesets() {
    let Some(network) = Network::up().await else { return };
    for golden in ["two-guests", "closed", "two-guests-on-a-host", "closed-on-a-host"] {
        network.run(&format!("nft -c -f {}/src/render/{golden}.nft", env!("CARGO_MANIFEST_DIR")));
    }
    // And what is added to them.
    let [a, b] = ["aaaaaaaaaa", "bbbbbbbbbb"].map(vm);
    let [a, b] = [guest(&a, 2, Reach::Internet), guest(&b, 3, Reach::Nothing)];
    let web = publication(Ipv4Addr::new(127, 77, 1, 5), 20000, SocketAddrV4::new(b.address, 80));
    let alone = Ruleset { guests: vec![a.clone()], ..Ruleset::default() };
    let both = Ruleset { guests: vec![a, b], publications: vec![web], ..Ruleset::default() };
    for plan in [Plan::of_the_host(), Plan::rootless()] {
        let addition = render::addition(&alone, &both, &plan).expect("one guest is added");
        network.run(&format!("nft -f - <<'END'\n{}END", alone.render(&plan)));
        network.run(&format!("nft -f - <<'END'\n{addition}END"));
        let rules = network.run("nft list ruleset");
        assert!(rules.contains("bg-bbbbbbbbbb") && rules.contains("172.16.0.3 : goto nothing"), "{rules}");
    }
    network.down().await;
}
