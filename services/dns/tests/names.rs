//! Names follow VMs: they come, go and change with them, and stay while the service that knows them is away.
#![allow(clippy::expect_used, reason = "a helper of tests fails by panicking")]

mod common;

use std::collections::HashMap;
use std::time::Duration;

use banger_schemas::dns;
use common::Host;
use common::vms::{changed, path, running, stopped};
use hickory_server::proto::rr::RecordType;
use zbus::fdo::DBusProxy;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::object_server::SignalEmitter;
use zbus::wire::Variant;

#[tokio::test]
async fn a_vm_has_a_name_while_it_runs() {
    let host = Host::serving().await;
    let vms = host.vms(&[running("listed", "127.77.0.1"), stopped("asleep", "127.77.0.2")]).await;
    let resolver = host.resolver().await;
    resolver.until("listed.vm.", Some("127.77.0.1")).await;
    assert_eq!(resolver.address("asleep.vm.").await, None);

    vms.add("new", running("new", "127.77.0.3")).await;
    resolver.until("new.vm.", Some("127.77.0.3")).await;
    vms.set_state("listed1", "starting").await;
    vms.set_state("listed1", "running").await;
    resolver.until("asleep.vm.", Some("127.77.0.2")).await;
    vms.set_state("listed1", "stopping").await;
    resolver.until("asleep.vm.", None).await;
    vms.set_address("new", "127.77.0.9").await;
    resolver.until("new.vm.", Some("127.77.0.9")).await;
    vms.set_address("new", "").await;
    resolver.until("new.vm.", None).await;
    vms.remove("listed0").await;
    resolver.until("listed.vm.", None).await;
}

#[tokio::test]
async fn a_change_that_is_not_told_is_looked_up() {
    let host = Host::serving().await;
    let vms = host.vms(&[stopped("box", "127.77.0.1"), running("other", "127.77.0.2")]).await;
    let resolver = host.resolver().await;
    resolver.until("other.vm.", Some("127.77.0.2")).await;
    vms.set_state_unsaid("listed0", "running").await;
    resolver.until("box.vm.", Some("127.77.0.1")).await;
}

#[tokio::test]
async fn the_service_starts_before_and_after_vms1() {
    let mut host = Host::quiet().await;
    let vms = host.vms(&[running("box", "127.77.0.1")]).await;
    host.serve().await;
    host.resolver().await.until("box.vm.", Some("127.77.0.1")).await;
    host.stop_serving();
    drop(vms);
    host.serve().await;
    assert_eq!(host.resolver().await.address("box.vm.").await, None);
}

#[tokio::test]
async fn names_outlive_vms1_until_its_successor_lists() {
    let host = Host::serving().await;
    let vms = host.vms(&[running("kept", "127.77.0.1"), running("lost", "127.77.0.2")]).await;
    let resolver = host.resolver().await;
    resolver.until("lost.vm.", Some("127.77.0.2")).await;
    vms.crash().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(resolver.address("kept.vm.").await.is_some() && resolver.address("lost.vm.").await.is_some());

    let next = host.vms(&[running("kept", "127.77.0.1"), running("found", "127.77.0.3")]).await;
    resolver.until("lost.vm.", None).await;
    assert!(resolver.address("kept.vm.").await.is_some() && resolver.address("found.vm.").await.is_some());
    next.set_state("listed0", "stopped").await;
    resolver.until("kept.vm.", None).await;
}

#[tokio::test]
async fn a_burst_of_changes_ends_where_vms1_ends() {
    let host = Host::serving().await;
    let machines: Vec<_> = (0..200).map(|i| running(&format!("vm{i}"), &format!("127.77.1.{i}"))).collect();
    let vms = host.vms(&machines).await;
    // While the listing is still under way, and more than any queue holds.
    for round in 0..5 {
        for index in 0..200 {
            let state = if (round + index) % 2 == 0 { "running" } else { "stopped" };
            vms.set_state(&format!("listed{index}"), state).await;
        }
    }
    let resolver = host.resolver().await;
    for index in 0..200 {
        let expected = (index % 2 == 0).then(|| format!("127.77.1.{index}"));
        resolver.until(&format!("vm{index}.vm."), expected.as_deref()).await;
    }
    assert_eq!(host.manager().await.list().await.unwrap().len(), 100);
}

#[tokio::test]
async fn only_vms1_is_believed() {
    let host = Host::serving().await;
    let vms = host.vms(&[running("box", "127.77.0.1")]).await;
    let resolver = host.resolver().await;
    resolver.until("box.vm.", Some("127.77.0.1")).await;

    // From somebody else: to all, and straight to the name server.
    let liar = host.connect().await;
    let dns = DBusProxy::new(&liar).await.unwrap().get_name_owner(dns::NAME.try_into().unwrap()).await.unwrap();
    for to in [None, Some(&dns)] {
        say_address(&liar, to, "127.66.6.6").await;
        let owner = liar.unique_name().unwrap().as_str();
        let body = ("dev.banger.Vms1", "", owner);
        let emitter = emitter(&liar, "/org/freedesktop/DBus", to);
        // A bus may refuse to pass on what only it may say.
        drop(emitter.emit("org.freedesktop.DBus", "NameOwnerChanged", &body).await);
        say_address(&liar, to, "127.66.6.6").await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(resolver.address("box.vm.").await, Some("127.77.0.1".parse().unwrap()));

    // The same words from Vms1 itself.
    say_address(vms.connection(), None, "127.77.0.7").await;
    resolver.until("box.vm.", Some("127.77.0.7")).await;
}

fn emitter<'a>(from: &'a zbus::Connection, path: &'a str, to: Option<&'a OwnedUniqueName>) -> SignalEmitter<'a> {
    let emitter = SignalEmitter::new(from, path).expect("a path");
    match to {
        None => emitter,
        Some(name) => emitter.set_destination(BusName::Unique(name.as_ref())),
    }
}

async fn say_address(from: &zbus::Connection, to: Option<&OwnedUniqueName>, address: &str) {
    let path = path("listed0");
    changed(&emitter(from, &path, to), HashMap::from([("HostAddress", Variant::from(address))]), vec![]).await;
}

#[tokio::test]
async fn the_bus_lists_what_is_served() {
    let host = Host::serving().await;
    let manager = host.manager().await;
    assert!(manager.list().await.unwrap().is_empty());
    let _vms = host.vms(&[running("b", "127.77.0.2"), running("a", "127.77.0.1"), stopped("c", "127.77.0.3")]).await;
    host.resolver().await.until("b.vm.", Some("127.77.0.2")).await;
    let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    assert_eq!(manager.list().await.unwrap(), [pair("a", "127.77.0.1"), pair("b", "127.77.0.2")]);
    let serial = |m: hickory_server::proto::op::Message| m.answers[0].data.to_string();
    let resolver = host.resolver().await;
    let before = serial(resolver.ask("vm.", RecordType::SOA).await);
    assert_eq!(before, serial(resolver.ask("vm.", RecordType::SOA).await));
}
