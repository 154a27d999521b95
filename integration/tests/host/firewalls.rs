//! Beside other firewalls, with the rules that they really make: machines reach the outside where nothing else that is
//! forwarded passes; what a firewall was told is put back when it is lost, and gone with banger.

use std::collections::BTreeMap;
use std::time::Duration;

use banger_integration::host::{Host, Options, Who};
use banger_integration::{eventually, within};
use serde_json::Value;

use crate::outside::{Outside, is_reached_from};
use crate::vms::{ALICE, machine};

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
    assert!(!before.is_empty() && before.keys().eq(after.keys()), "{:?} {:?}", before.keys(), after.keys());
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
    let zone = "org.fedoraproject.FirewallD1 /org/fedoraproject/FirewallD1 org.fedoraproject.FirewallD1.zone";
    for (user, may) in [("banger-network", true), ("banger-dns", false), ("banger-vms", false), ("nobody", false)] {
        let user = format!("--reuid={user}");
        let call = format!("exec busctl call {zone} addInterface ss trusted x{may} 2>&1");
        let said = host.run(["setpriv", &user, "--regid=nogroup", "--clear-groups", "sh", "-c", &call]);
        assert_eq!(said.code == 0, may, "{user}: {}", said.stdout);
    }
    host.ok(["firewall-cmd", "--quiet", "--zone=trusted", "--remove-interface=xtrue"]);
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

/// As Docker 28 makes them, which no package of Debian 12 has: DOCKER-USER without a last return, its own rules behind a
/// chain of their own.
const DOCKER_28: &str = "*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
COMMIT
";

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn machines_pass_the_rules_of_a_newer_docker() {
    let host = crate::vms::host();
    let _outside = Outside::of(&host);
    let load = || host.errand(Who::Root, ["iptables-restore"]).stdin(DOCKER_28).ok();
    load();
    let before = rules(&host);
    machine(&host, "box");
    assert!(is_reached_from(&host, "box"));
    is_needed(&host, "iptables -F DOCKER-USER");
    load();
    passes_soon(&host, "all of its rules anew");
    uninstall(&host);
    is_as(&host, &before);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn rules_of_nobody_that_is_known_are_left_alone_and_told() {
    let host = crate::vms::host();
    host.ok(["iptables", "-P", "FORWARD", "DROP"]);
    let before = rules(&host);
    machine(&host, "box");
    assert!(notes(&host).contains("the chain FORWARD of the nftables table ip filter drops"), "{}", notes(&host));
    let doctor = host.run(["banger", "doctor"]).stdout;
    assert!(doctor.lines().any(|line| line.starts_with("warn  network") && line.contains("br-banger")), "{doctor}");
    is_as(&host, &before);
    // Whoever lets them pass is believed.
    host.sh("iptables -A FORWARD -i br-banger -j ACCEPT; iptables -A FORWARD -o br-banger -j ACCEPT");
    eventually("it is told no more", || notes(&host).trim() == "as 0");
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
}

/// Only what has loaded their module is seen of them, which a container has no way to.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn rules_of_the_old_iptables_are_told_of() {
    let host = Host::boot_machine();
    host.install();
    let manager = "busctl call dev.banger.Network1 /dev/banger/Network1 dev.banger.Network1.Manager";
    // As for a machine, without one.
    let open = || {
        host.sh(&format!("{manager} Reserve 'sa{{sv}}' abcdefghij 0; {manager} OpenTap 'sa{{sv}}' abcdefghij 0"));
    };
    open();
    assert_eq!(notes(&host).trim(), "as 0");
    host.ok(["iptables-legacy", "-P", "FORWARD", "DROP"]);
    host.ok(["systemctl", "restart", "banger-network"]);
    open();
    assert!(notes(&host).contains("iptables-legacy -I FORWARD"), "{}", notes(&host));
}
