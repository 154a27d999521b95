//! Beside other firewalls, with the rules that they really make: machines reach the outside where nothing else that is
//! forwarded passes; what a firewall was told is put back when it is lost, and gone with banger.

use std::collections::BTreeMap;
use std::time::Duration;

use banger_integration::host::{Host, Options, User, Who};
use banger_integration::{eventually, within};
use serde_json::Value;

use crate::outside::{Outside, is_reached_from};
use crate::vms::machine;

const ALICE: Who = Who::NoSession(User::Alice);

/// A host with firewalls beside banger, none of which runs yet.
fn host() -> Host {
    let host = Host::boot(Options { firewalls: true, ..Options::default() });
    host.install();
    host.seed_images();
    host
}

/// All rules but banger's own, by their chains: without what is counted, and numbers that a restart makes anew.
fn rules(host: &Host) -> BTreeMap<String, Vec<Value>> {
    let listed: Value = serde_json::from_str(&host.ok(["nft", "--json", "list", "ruleset"])).unwrap();
    let mut chains: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in listed["nftables"].as_array().unwrap() {
        for (kind, name) in [("chain", "name"), ("rule", "chain")] {
            let Some(mut item) = object.get(kind).cloned().filter(|item| item["table"] != "banger") else { continue };
            item.as_object_mut().unwrap().remove("handle");
            if let Some(parts) = item.get_mut("expr").and_then(Value::as_array_mut) {
                parts.retain(|part| part.get("counter").is_none());
            }
            chains.entry(format!("{} {} {}", item["family"], item["table"], item[name])).or_default().push(item);
        }
    }
    chains
}

fn notes(host: &Host) -> String {
    host.ok(["busctl", "call", "dev.banger.Network1", "/dev/banger/Network1", "dev.banger.Network1.Manager", "Notes"])
}

/// Without what it was told the firewall drops a machine's packets: so that is what lets them pass. The service sleeps
/// meanwhile, since it would put it back.
fn is_needed(host: &Host, forget: &str) {
    host.ok(["systemctl", "kill", "--signal=STOP", "banger-network"]);
    host.sh(forget);
    assert!(!is_reached_from(host, "box"), "it passes without");
    host.ok(["systemctl", "kill", "--signal=CONT", "banger-network"]);
    passes_soon(host, forget);
}

fn passes_soon(host: &Host, after: &str) {
    let took = within(Duration::from_secs(5), &format!("it passes after: {after}"), || is_reached_from(host, "box"));
    println!("{after}: passes after {took:?}");
}

/// The end of banger.
fn uninstall(host: &Host) {
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
    let undone = host.run(["banger", "system", "uninstall"]);
    assert_eq!(undone.code, 0, "{}", undone.stderr);
    println!("{}", undone.stderr);
}

fn is_as(host: &Host, before: &BTreeMap<String, Vec<Value>>) {
    let after = rules(host);
    assert!(before.len() > 3 && before.keys().eq(after.keys()), "{:?} {:?}", before.keys(), after.keys());
    for (chain, rules) in before {
        assert_eq!(&after[chain], rules, "{chain}");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn machines_pass_docker() {
    let host = host();
    let _outside = Outside::of(&host);
    host.ok(["systemctl", "start", "docker"]);
    assert!(host.ok(["iptables", "-S", "FORWARD"]).starts_with("-P FORWARD DROP"));
    // An administrator's own rule, which stays before ours.
    host.ok(["iptables", "-I", "DOCKER-USER", "-d", "203.0.113.7", "-j", "DROP"]);
    let before = rules(&host);
    machine(&host, "box");
    assert!(is_reached_from(&host, "box"));
    assert_eq!(notes(&host).trim(), "as 0");
    let told = host.ok(["iptables", "-S", "DOCKER-USER"]);
    let of = |word: &str| told.lines().position(|line| line.contains(word)).unwrap();
    assert!(of("203.0.113.7") < of("-i br-banger") && of("-o br-banger") < of("-j RETURN"), "{told}");
    is_needed(&host, "iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
    host.ok(["systemctl", "restart", "docker"]);
    passes_soon(&host, "docker's restart");
    host.ok(["iptables", "-I", "DOCKER-USER", "-d", "203.0.113.7", "-j", "DROP"]);
    uninstall(&host);
    is_as(&host, &before);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn machines_pass_ufw() {
    let host = host();
    let _outside = Outside::of(&host);
    host.ok(["ufw", "--force", "enable"]);
    // It leaves one of its own rules out, the second time.
    host.ok(["ufw", "reload"]);
    assert!(host.ok(["iptables", "-S", "FORWARD"]).starts_with("-P FORWARD DROP"));
    let before = rules(&host);
    machine(&host, "box");
    assert!(is_reached_from(&host, "box"));
    assert_eq!(notes(&host).trim(), "as 0");
    // Names of machines and the host's way to them are no forwarding.
    host.ok(["getent", "hosts", "box.vm"]);
    is_needed(&host, "iptables -F ufw-user-forward");
    host.ok(["ufw", "reload"]);
    passes_soon(&host, "ufw's reload");
    uninstall(&host);
    is_as(&host, &before);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn machines_pass_firewalld() {
    let host = host();
    let _outside = Outside::of(&host);
    host.ok(["systemctl", "start", "firewalld"]);
    eventually("firewalld has its rules", || rules(&host).keys().any(|chain| chain.contains("filter_FORWARD")));
    host.ok(["firewall-cmd", "--state"]);
    let before = rules(&host);
    machine(&host, "box");
    assert!(is_reached_from(&host, "box"));
    assert_eq!(notes(&host).trim(), "as 0");
    assert_eq!(host.ok(["firewall-cmd", "--get-zone-of-interface=br-banger"]).trim(), "trusted");
    is_needed(&host, "firewall-cmd --quiet --zone=trusted --remove-interface=br-banger");
    host.ok(["firewall-cmd", "--reload"]);
    passes_soon(&host, "firewalld's reload");
    host.ok(["systemctl", "restart", "firewalld"]);
    passes_soon(&host, "firewalld's restart");
    uninstall(&host);
    assert_ne!(host.run(["firewall-cmd", "--get-zone-of-interface=br-banger"]).code, 0);
    // It keeps the chains of a zone that it has used once until it reads its files again.
    host.ok(["firewall-cmd", "--reload"]);
    is_as(&host, &before);
}
