//! The walls of the units: that no wall could be nearer. Each right that a unit still has is taken away, and banger
//! must fail without it.

use std::collections::BTreeSet;

use banger_integration::host::{Host, SERVICES};
use banger_integration::sample;

use crate::vms::{host, machine};

/// Of all rights, a run takes about this many.
const SAMPLE: u64 = 16;

/// Needed where no test of this kind comes: whether KVM works is found out by a VMM, of which the supervisor is the
/// parent, on hosts that have KVM; the runtime may start a thread; and names follow the bridge for systemd-resolved
/// (`names.rs`).
const ELSEWHERE: [(&str, &str); 4] = [
    ("dns", "RestrictAddressFamilies=~AF_NETLINK"),
    ("vms", "SystemCallFilter=~@ipc"),
    ("sessions", "SystemCallFilter=~@process"),
    ("dns", "SystemCallFilter=~@process"),
];

/// A right that a unit has, as the line of a drop-in that takes it away.
#[derive(Debug, Clone)]
struct Right {
    service: &'static str,
    without: String,
}

fn unit(service: &str) -> String {
    format!("banger-{service}.service")
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What a group of system calls consists of (systemd.exec(5)).
fn group(host: &Host, name: &str) -> BTreeSet<String> {
    let listed = host.ok(["systemd-analyze", "syscall-filter", name]);
    lines(&listed).skip(1).map(str::to_owned).collect()
}

fn rights(host: &Host, service: &'static str) -> Vec<Right> {
    let unit = &unit(service);
    let words = |property: &str| -> BTreeSet<String> {
        let shown = host.ok(["systemctl", "show", "--value", "--property", property, unit]);
        assert!(!shown.starts_with('~'), "{property} of {unit} says what is forbidden, and not what is allowed");
        shown.split_whitespace().map(str::to_owned).collect()
    };
    let mut without = Vec::new();
    for setting in ["CapabilityBoundingSet", "RestrictAddressFamilies"] {
        without.extend(words(setting).into_iter().map(|value| format!("{setting}=~{}", value.to_uppercase())));
    }
    let calls = words("SystemCallFilter");
    let groups = group(host, "@system-service");
    let allowed = |name: &&String| group(host, name).iter().any(|call| calls.contains(call));
    // Nothing starts without the first.
    let groups = groups.iter().filter(|name| name.starts_with('@') && *name != "@default").filter(allowed);
    without.extend(groups.map(|name| format!("SystemCallFilter=~{name}")));
    without.retain(|line| !ELSEWHERE.contains(&(service, line)));
    without.into_iter().map(|without| Right { service, without }).collect()
}

/// What a service is for, in short; it fails where the service does. `box` runs all the while.
fn work(service: &str) -> String {
    let call = |interface: &str, method_and_words: &str| {
        format!(
            "busctl call --timeout=5 dev.banger.{interface} /dev/banger/{interface} dev.banger.{interface}.Manager {method_and_words}"
        )
    };
    let holder = "zzzzzzzzzz";
    let lines = match service {
        "network" => [
            &format!("Reserve 'sa{{sv}}' {holder} 1 ports as 1 8099:80"),
            &format!("OpenTap 'sa{{sv}}' {holder} 0"),
            &format!("SetNat 'sba{{sv}}' {holder} false 0"),
            &format!("CloseTap 'sa{{sv}}' {holder} 0"),
            &format!("Release 'sa{{sv}}' {holder} 0"),
        ]
        .map(|words| call("Network1", words))
        .to_vec(),
        "storage" => [
            // Of a size that no template is there for.
            &format!("Create 'sta{{sv}}' {holder} $((4096 + $(date +%s) % 5000)) 0"),
            &format!("Open 'sa{{sv}}' {holder} 0"),
            "Usage",
            &format!("Delete 'sa{{sv}}' {holder} 0"),
        ]
        .map(|words| call("Storage1", words))
        .to_vec(),
        "images" => [
            &format!("Claim 'sssa{{sv}}' {holder} debian-tiny debian-bookworm-cloud 0"),
            &format!("Open 'sa{{sv}}' {holder} 0"),
            &format!("Release 'sa{{sv}}' {holder} 0"),
            "Show s debian-tiny",
        ]
        .map(|words| call("Images1", words))
        .to_vec(),
        "dns" => ["", "+tcp"]
            // What a service that has just come knows, it has heard of the supervisor.
            .map(|how| format!("timeout 4 sh -c 'until dig @127.0.0.1 -p 42069 {how} +short +tries=1 +time=1 box.vm | grep -q ^172; do sleep 0.1; done'"))
            .to_vec(),
        "sessions" => vec!["banger vm exec box -- true".to_owned()],
        _ => vec!["banger vm run --rm --image debian-tiny -- true".to_owned(), "banger vm logs box >/dev/null".to_owned()],
    };
    lines.join("\n")
}

fn works(host: &Host, service: &str) -> bool {
    host.run(["timeout", "12", "sh", "-euc", &work(service)]).code == 0
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn each_right_of_a_service_is_needed() {
    let host = host();
    machine(&host, "box");
    let mut all = Vec::new();
    for service in SERVICES {
        assert!(works(&host, service), "{service}, with all rights");
        all.extend(rights(&host, service));
    }
    let mut idle = Vec::new();
    for right in sample("rights", SAMPLE, all) {
        let unit = unit(right.service);
        let less = format!("/run/systemd/system/{unit}.d/zz.conf");
        host.write(&less, format!("[Service]\n{}\n", right.without));
        host.sh("systemctl daemon-reload");
        host.run(["timeout", "5", "systemctl", "restart", &unit]);
        let needed = !works(&host, right.service);
        println!("{right:?}: {}", if needed { "needed" } else { "IDLE" });
        host.sh(&format!("rm {less}; systemctl daemon-reload; systemctl reset-failed; systemctl restart {unit}"));
        if !needed {
            idle.push(right);
        }
    }
    assert!(idle.is_empty(), "units have rights that nothing needs: {idle:#?}");
}
