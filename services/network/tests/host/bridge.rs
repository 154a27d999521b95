//! The network of a host, as root in a namespace that stands for one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use banger_network::host::bridge::Config;
use banger_network::host::{Change, Error, Host, Refusal};
use banger_network::plan::Plan;
use banger_network::render::{Guest, Protocol, Publication, Reach, Ruleset};
use banger_schemas::VmId;
use tokio::time::timeout;

use crate::network::{guest, soon, vm};
use crate::pretend::{Place, Pretend, ask_who_has, dial_from, hears_arp_from, serve_in};
use crate::scratch::Scratch;

fn rules(guests: &[&Guest]) -> Ruleset {
    Ruleset { guests: guests.iter().map(|guest| (*guest).clone()).collect(), ..Ruleset::default() }
}

#[tokio::test]
async fn the_host_keeps_the_contract_and_is_as_it_was_afterwards() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    let before = host.run("ip -o link | cut -d: -f2; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward");
    crate::contract::holds(&host.bridge).await;
    assert_eq!(host.run("ip -o link | cut -d: -f2; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward"), before);
}

#[tokio::test]
async fn a_guest_reaches_the_outside_and_never_this_host() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    host.bridge.ensure().await.unwrap();
    let _servers: Vec<_> =
        [(80, "outside"), (53, "names")].map(|(port, text)| serve_in(&host.outside, port, text)).into();
    let _own: Vec<_> = [(80, "secret"), (53, "own")].map(|(port, text)| serve_in(&host.inside, port, text)).into();
    let mut a = guest(&vm("aaaaaaaaaa"), 2, Reach::Internet);
    host.bridge.apply(&rules(&[&a])).await.unwrap();
    let pretend = Pretend::new(&host.inside, &a);

    assert_eq!(pretend.dial("198.51.100.1:80").as_deref(), Ok("outside"));
    for own in ["172.16.0.1:80", "192.0.2.2:80", "127.0.0.1:80", "172.16.0.1:53", "169.254.169.254:80", "10.9.9.9:80"] {
        assert!(pretend.dial(own).is_err(), "{own}");
    }
    // Names come from whom the host asks, at the gateway's address.
    let resolver = Some(Ipv4Addr::new(10, 9, 9, 9));
    host.bridge.apply(&Ruleset { resolver, ..rules(&[&a]) }).await.unwrap();
    assert_eq!(pretend.dial("172.16.0.1:53").as_deref(), Ok("names"));
    assert!(pretend.dial("10.9.9.9:53").is_err() && pretend.dial("172.16.0.1:80").is_err());
    let resolver = Some(Ipv4Addr::new(192, 0, 2, 2));
    host.bridge.apply(&Ruleset { resolver, ..rules(&[&a]) }).await.unwrap();
    assert_eq!(pretend.dial("172.16.0.1:53").as_deref(), Ok("own"), "a name server on the host itself");
    assert!(pretend.dial("192.0.2.2:53").is_err());

    // Private networks by policy, nothing at all by another, and at once.
    a.reach = Reach::Networks;
    host.bridge.apply(&rules(&[&a])).await.unwrap();
    assert_eq!(pretend.dial("10.9.9.9:80").as_deref(), Ok("outside"));
    assert!(pretend.dial("169.254.169.254:80").is_err());
    a.reach = Reach::Nothing;
    host.bridge.apply(&rules(&[&a])).await.unwrap();
    assert!(pretend.dial("198.51.100.1:80").is_err());
}

#[tokio::test]
async fn the_host_reaches_a_guest_and_nobody_outside_does() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    host.bridge.ensure().await.unwrap();
    let a = guest(&vm("aaaaaaaaaa"), 2, Reach::Nothing);
    let (outside, inside) = (SocketAddrV4::new(a.address, 8080), SocketAddrV4::new(a.address, 3000));
    let web = Publication { protocol: Protocol::Tcp, outside, internal: 0, guest: inside };
    host.bridge.apply(&Ruleset { publications: vec![web], ..rules(&[&a]) }).await.unwrap();
    let pretend = Pretend::new(&host.inside, &a);
    let _server = pretend.serve(3000, "hello");
    assert_eq!(dial_from(&host.inside, inside).as_deref(), Ok("hello"));
    assert_eq!(dial_from(&host.inside, outside).as_deref(), Ok("hello"));
    host.outside.run("ip route add 172.16.0.0/24 via 192.0.2.2");
    assert!(dial_from(&host.outside, inside).is_err());
}

#[tokio::test]
async fn guests_do_not_reach_each_other_nor_pretend_to_be() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    host.bridge.ensure().await.unwrap();
    let (a, b) = (guest(&vm("aaaaaaaaaa"), 2, Reach::Networks), guest(&vm("bbbbbbbbbb"), 3, Reach::Networks));
    // The second one comes to the first.
    host.bridge.apply(&rules(&[&a])).await.unwrap();
    host.bridge.apply(&rules(&[&a, &b])).await.unwrap();
    let quiet = timeout(Duration::from_millis(200), host.bridge.lost()).await;
    assert!(quiet.is_err(), "what we add ourselves is no loss");
    let (pretend, other) = (Pretend::new(&host.inside, &a), Pretend::new(&host.inside, &b));
    let _servers = (serve_in(&host.outside, 80, "outside"), other.serve(80, "b"));
    assert_eq!(pretend.dial("198.51.100.1:80").as_deref(), Ok("outside"));
    assert!(pretend.dial("172.16.0.3:80").is_err());
    // Neither by the gateway.
    pretend.run("ip route add 172.16.0.3/32 via 172.16.0.1");
    assert!(pretend.dial("172.16.0.3:80").is_err());
    drop(other);
    let be = |address: &str| {
        pretend.run(&format!(
            "ip addr flush dev eth0 && ip addr add {address}/24 dev eth0 && ip route add default via 172.16.0.1"
        ));
    };
    be("172.16.0.3");
    assert!(pretend.dial("198.51.100.1:80").is_err(), "another's address");
    be("172.16.0.2");
    assert_eq!(pretend.dial("198.51.100.1:80").as_deref(), Ok("outside"));
    pretend.run("ip link set eth0 down && ip link set eth0 address 02:99:99:99:99:99 && ip link set eth0 up");
    be("172.16.0.2");
    assert!(pretend.dial("198.51.100.1:80").is_err(), "another's MAC");
}

#[tokio::test]
async fn a_tap_is_kept_isolated_and_nobody_elses() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    host.bridge.ensure().await.unwrap();
    let (a, b) = (guest(&vm("aaaaaaaaaa"), 2, Reach::Internet), guest(&vm("bbbbbbbbbb"), 3, Reach::Internet));
    let gateway = host.bridge.plan().gateway();
    host.bridge.apply(&rules(&[&a, &b])).await.unwrap();
    let tap = host.bridge.add_tap(&a.vm).await.unwrap();
    soon("warm TAPs", || async { host.run("ip -o link").matches("bg-warm").count() == 2 }).await;
    // The second one is a warm one by another name.
    let other = host.bridge.add_tap(&b.vm).await.unwrap();
    assert_eq!(host.run("ip -6 -o addr show scope link | grep -E 'bg-|br-banger' || true"), "");
    ask_who_has(&tap, a.mac, a.address, gateway);
    assert!(hears_arp_from(&tap, gateway));
    ask_who_has(&other, b.mac, b.address, gateway);
    assert!(hears_arp_from(&other, gateway));
    host.run("nft flush ruleset");
    ask_who_has(&tap, a.mac, a.address, b.address);
    assert!(!hears_arp_from(&other, a.address), "isolated without any rule");
    assert!(matches!(host.bridge.add_tap(&a.vm).await, Err(Error::Op { message, .. }) if message.contains("held")));

    // Free for a moment, and still nobody's but ours.
    drop(tap);
    let stranger = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all";
    let steal = format!("chmod 666 /dev/net/tun; {stranger} ip tuntap add dev bg-aaaaaaaaaa mode tap vnet_hdr");
    let tried = Command::new("sh").args(["-c", &steal]).output().unwrap();
    assert!(!tried.status.success(), "{tried:?}");
    drop(host.bridge.add_tap(&a.vm).await.unwrap());

    assert_eq!(host.bridge.taps().await.unwrap().len(), 2);
    host.bridge.down().await.unwrap();
    soon("no link is left", || async { !host.run("ip -o link").contains("bg-") }).await;
}

#[tokio::test]
async fn the_thousandth_guest_comes_as_quickly_as_the_tenth() {
    let plan = Plan { net: "172.16.0.1/20".parse().unwrap(), ..Plan::of_the_host() };
    let Some(host) = Scratch::with(plan, Config { warm: 0, ..Config::default() }) else { return };
    host.bridge.ensure().await.unwrap();
    let mut rules = Ruleset::default();
    let mut took = Vec::new();
    for n in 0..1000u16 {
        let [high, low] = (n + 2).to_be_bytes();
        let vm = VmId::from_random([low % 32, low / 32, high, 0, 0, 0, 0, 0, 0, 0]);
        let address = Ipv4Addr::new(172, 16, high, low);
        rules.guests.push(Guest { vm, mac: [2, 0, 0, 0, high, low], address, reach: Reach::Internet });
        let begun = Instant::now();
        host.bridge.apply(&rules).await.unwrap();
        took.push(begun.elapsed());
    }
    assert_eq!(host.run("nft list set bridge banger guests | grep -o bg- | wc -l").trim(), "1000");
    // The quickest of each: whatever else runs meanwhile makes none quicker.
    let quickest = |part: &[Duration]| part.iter().copied().min().unwrap();
    let (early, late) = (quickest(&took[10..60]), quickest(&took[950..]));
    println!("one of the first {early:?}, one of the last {late:?}");
    assert!(late < early * 3, "{early:?} at first, {late:?} at last");
}

#[tokio::test]
async fn whatever_is_flushed_or_removed_is_back_within_a_second() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    assert!(host.bridge.lost().await.is_ok(), "before there is anything");
    host.bridge.ensure().await.unwrap();
    let a = guest(&vm("aaaaaaaaaa"), 2, Reach::Internet);
    host.bridge.apply(&rules(&[&a])).await.unwrap();
    let _tap = host.bridge.add_tap(&a.vm).await.unwrap();
    let quiet = timeout(Duration::from_millis(300), host.bridge.lost()).await;
    assert!(quiet.is_err(), "what we do ourselves is no loss");

    let whole = "nft list table ip banger | grep -q 172.16.0.2 && nft list table bridge banger | grep -q 172.16.0.2 && \
                 ip -o link show bg-aaaaaaaaaa | grep -q 'master br-banger' && ip -o -4 addr show br-banger | grep -q 172.16.0.1 && \
                 grep -q 1 /proc/sys/net/ipv4/ip_forward && bridge -d link show dev bg-aaaaaaaaaa | grep -q 'isolated on'";
    host.run(whole);
    for blow in [
        "nft flush ruleset",
        "nft delete table ip banger",
        "nft flush table bridge banger",
        "nft flush chain ip banger from_guest",
        "ip link del br-banger",
        "ip link set br-banger down",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
    ] {
        host.run(blow);
        let from = Instant::now();
        let lost = timeout(Duration::from_secs(1), host.bridge.lost()).await;
        assert!(matches!(lost, Ok(Ok(()))), "{blow}: {lost:?}");
        host.bridge.ensure().await.unwrap();
        host.bridge.apply(&rules(&[&a])).await.unwrap();
        host.run(whole);
        println!("{blow}: back after {:?}", from.elapsed());
        let quiet = timeout(Duration::from_millis(200), host.bridge.lost()).await;
        if matches!(quiet, Ok(Ok(()))) {
            // Once more, for what it did itself; then it must be quiet.
            host.bridge.ensure().await.unwrap();
            assert!(timeout(Duration::from_millis(200), host.bridge.lost()).await.is_err(), "{blow}: no end of it");
        }
    }
}

#[tokio::test]
async fn what_is_others_is_left_alone_and_told() {
    let Some(host) = Scratch::new(Config { warm: 0, ..Config::default() }) else { return };
    let (a, b, c, d) = (vm("aaaaaaaaaa"), vm("bbbbbbbbbb"), vm("cccccccccc"), vm("dddddddddd"));
    host.bridge.ensure().await.unwrap();
    drop(host.bridge.add_tap(&a).await.unwrap());
    drop(host.bridge.add_tap(&b).await.unwrap());
    let held = host.bridge.add_tap(&c).await.unwrap();
    host.run("ip tuntap add dev bg-dddddddddd mode tap");
    host.run("nft 'add table ip bangers; add chain ip bangers x'");

    let restarted = host.restarted(Config::default());
    let found = restarted.sweep(&BTreeSet::from([a.clone()])).await.unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|text| text.starts_with("bg-bbbbbbbbbb") && text.ends_with("removed")), "{found:?}");
    assert_eq!(restarted.taps().await.unwrap(), [a.clone(), c.clone()], "known, and used");
    host.run("ip link show bg-dddddddddd");
    restarted.ensure().await.unwrap();
    assert!(matches!(restarted.add_tap(&d).await, Err(Error::Foreign(name)) if name == "bg-dddddddddd"));
    assert!(!restarted.remove_tap(&d).await.unwrap());
    drop(held);
    restarted.down().await.unwrap();
    host.run("ip link show bg-dddddddddd && nft list table ip bangers");

    // A bridge of our name, and an address of our network.
    host.run("ip link add br-banger type bridge");
    assert!(matches!(host.bridge.ensure().await, Err(Error::Foreign(name)) if name == "br-banger"));
    host.run("ip link del br-banger && ip addr add 172.16.0.9/28 dev eth0");
    let refused = host.bridge.ensure().await;
    assert!(
        matches!(&refused, Err(Error::Refused(Refusal::NetworkTaken { link, .. })) if link == "eth0"),
        "{refused:?}"
    );
    assert!(host.bridge.probe().await.is_err());
    assert!(!host.run("ip -o link").contains("br-banger"));
}

#[tokio::test]
async fn forwarding_that_was_on_stays_on() {
    let Some(host) = Scratch::new(Config::default()) else { return };
    host.run("echo 1 > /proc/sys/net/ipv4/ip_forward");
    assert_eq!(host.bridge.ensure().await.unwrap().namespace, Change::Made);
    host.bridge.down().await.unwrap();
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

/// How much one more VM costs, with and without a warm TAP; printed for whoever compares.
#[tokio::test]
async fn a_warm_tap_is_taken_and_named() {
    let Some(host) = Scratch::new(Config { warm: 4, ..Config::default() }) else { return };
    host.bridge.ensure().await.unwrap();
    let cold = Instant::now();
    let _first = host.bridge.add_tap(&vm("aaaaaaaaaa")).await.unwrap();
    let cold = cold.elapsed();
    soon("warm TAPs", || async { host.run("ip -o link").matches("bg-warm").count() == 4 }).await;
    let warm = Instant::now();
    let _second = host.bridge.add_tap(&vm("bbbbbbbbbb")).await.unwrap();
    println!("a TAP made now: {cold:?}; a warm one: {:?}", warm.elapsed());
    assert!(host.run("ip -o link").contains("bg-bbbbbbbbbb"));
}
