//! Names of machines on a host with systemd-resolved: every program finds them, and nobody finds less than before.

use std::time::Duration;

use banger_integration::host::{Host, Options, Running, Who};
use banger_integration::{eventually, within};

use crate::outside::{self, Outside};
use crate::vms::{ALICE, host, machine};

/// A web server in the guest, of what every Debian has.
const SERVE: &str = r#"use IO::Socket::INET; $| = 1;
my $s = IO::Socket::INET->new(LocalPort => 3000, Listen => 5, ReuseAddr => 1) or die $!;
print "serves\n";
while (my $c = $s->accept) { while (<$c>) { last if /^\r?$/ } print $c "HTTP/1.0 200 OK\r\n\r\nhello\n"; close $c }"#;

pub(crate) fn serve<'h>(host: &'h Host, name: &str) -> Running<'h> {
    let mut server = host.start_as(ALICE, ["banger", "vm", "exec", name, "--", "perl", "-e", SERVE]);
    server.says("serves");
    server
}

fn resolvectl(host: &Host) -> String {
    host.ok(["resolvectl", "status", "br-banger"])
}

fn is_wired(host: &Host) -> bool {
    resolvectl(host).contains("127.0.0.1:42069")
}

fn notes(host: &Host) -> String {
    host.ok(["busctl", "call", "dev.banger.Dns1", "/dev/banger/Dns1", "dev.banger.Dns1.Manager", "Notes"])
}

/// Has resolved ask the server outside in this manner.
fn configure(host: &Host, setting: &str) {
    host.write("/etc/systemd/resolved.conf.d/outside.conf", format!("[Resolve]\n{setting}=192.0.2.1\n"));
    host.ok(["systemctl", "restart", "systemd-resolved"]);
}

fn resolves_others(host: &Host) -> bool {
    host.run(["resolvectl", "query", "--cache=no", "example.org"]).stdout.contains(outside::ADDRESS)
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_machine_is_reached_by_its_name_from_any_program_of_the_host() {
    let host = host();
    let _outside = Outside::of(&host);
    configure(&host, "DNS");
    assert!(resolves_others(&host));
    machine(&host, "box");
    let _server = serve(&host, "box");
    let address = host.ok_as(ALICE, ["getent", "ahostsv4", "box.vm"]);
    let address = address.split_whitespace().next().unwrap();
    for url in [format!("http://{address}:3000"), "http://box.vm:3000".to_owned()] {
        for who in [Who::Root, ALICE, Who::Nobody] {
            assert_eq!(host.ok_as(who, ["curl", "--silent", "--max-time", "5", &url]), "hello\n", "{who}: {url}");
        }
    }
    let query = host.ok(["resolvectl", "query", "box.vm"]);
    assert!(query.contains(address) && query.contains("protocol DNS"), "{query}");
    assert_ne!(host.run(["getent", "hosts", "other.vm"]).code, 0);
    assert!(outside::is_reached_from(&host, "box"));
    let words = ["banger", "vm", "exec", "box", "--", "getent", "ahostsv4", "example.org"];
    assert!(host.ok_as(ALICE, words).starts_with(outside::ADDRESS), "the machine asks whom the host asks");
    assert!(resolves_others(&host), "it asks us about nothing else");
    // Guests do not hear what the host looks for.
    let status = resolvectl(&host);
    for setting in ["~vm", "-DefaultRoute", "-LLMNR", "-mDNS"] {
        assert!(status.contains(setting), "{status}");
    }
    assert_eq!(notes(&host).trim(), "as 0");
    let doctor = host.run_as(ALICE, ["banger", "doctor"]).stdout;
    assert!(doctor.lines().any(|line| line.starts_with("pass  names")) && !doctor.contains("warn  names"), "{doctor}");

    // Whoever is made anew is told anew.
    let reached = || host.run(["curl", "--silent", "--max-time", "1", "http://box.vm:3000"]).stdout == "hello\n";
    let again = |what: &str, words: &[&str]| {
        host.ok(words);
        let took = within(Duration::from_secs(5), &format!("the machine is reached after {what}"), || {
            is_wired(&host) && reached()
        });
        println!("{what}: reached after {took:?}");
        took
    };
    host.ok(["systemctl", "stop", "systemd-resolved"]);
    host.sh("rm -f /run/systemd/resolve/netif/*");
    let a_second = Duration::from_secs(1);
    assert!(again("resolved's start", &["systemctl", "start", "systemd-resolved"]) < a_second);
    assert!(again("its restart", &["systemctl", "restart", "systemd-resolved"]) < a_second);
    again("its death", &["systemctl", "kill", "--signal=KILL", "systemd-resolved"]);
    again("the bridge's loss", &["ip", "link", "delete", "br-banger"]);
    again("our own death", &["systemctl", "kill", "--signal=KILL", "banger-dns"]);

    host.ok(["systemctl", "stop", "banger-dns"]);
    let status = resolvectl(&host);
    assert!(!status.contains("DNS Servers") && !status.contains("~vm"), "{status}");
    host.ok(["systemctl", "start", "banger-dns"]);
    eventually("names are wired again", || is_wired(&host));
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
    // With nobody at it the link is no link to resolved, which looks elsewhere: outside every name has an address.
    eventually("the name is gone", || host.ok(["getent", "hosts", "box.vm"]).starts_with(outside::ADDRESS));
    host.ok(["banger", "system", "uninstall"]);
    assert!(resolves_others(&host) && !host.ok(["resolvectl", "status"]).contains("42069"));
}

/// systemd 252 leaves its fallback servers alone as soon as any link has one: a host that has no others would find
/// nothing any more.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn where_the_hosts_own_lookups_would_get_worse_names_are_taken_back_and_it_is_said() {
    let host = host();
    let _outside = Outside::of(&host);
    configure(&host, "FallbackDNS");
    assert!(resolves_others(&host));
    machine(&host, "box");
    eventually("it is said", || notes(&host).contains("FallbackDNS"));
    assert!(resolves_others(&host) && !is_wired(&host));
    let doctor = host.run_as(ALICE, ["banger", "doctor"]).stdout;
    assert!(doctor.lines().any(|line| line.starts_with("warn  names") && line.contains("resolved.conf")), "{doctor}");
    // What it says helps.
    configure(&host, "DNS");
    eventually("names are wired", || is_wired(&host));
    assert!(resolves_others(&host));
    host.ok(["getent", "hosts", "box.vm"]);
    assert_eq!(notes(&host).trim(), "as 0");
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_host_without_resolved_is_told_who_answers_and_a_host_without_its_stub_what_is_missing() {
    let host = host();
    machine(&host, "box");
    eventually("names are wired", || is_wired(&host));
    host.sh("rm /etc/resolv.conf; echo 'nameserver 192.0.2.1' >/etc/resolv.conf; systemctl restart banger-dns");
    eventually("the stub is missed", || notes(&host).contains("stub-resolv.conf"));
    host.ok(["systemctl", "stop", "systemd-resolved"]);
    eventually("resolved is missed", || notes(&host).contains("server=/vm/127.0.0.1#42069"));
    assert_ne!(host.run(["systemctl", "is-active", "systemd-resolved"]).code, 0, "nobody starts it");
    let dig = host.ok(["dig", "+short", "-p", "42069", "@127.0.0.1", "box.vm"]);
    assert!(dig.starts_with("172.16.0."), "{dig}");
    let doctor = host.run_as(ALICE, ["banger", "doctor"]).stdout;
    assert!(
        doctor.lines().any(|line| line.starts_with("warn  names") && line.contains("systemd-resolved")),
        "{doctor}"
    );
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
}

/// What the name server's user may have resolved do with a link.
const MAY: [&str; 6] = [
    "SetLinkLLMNR is IFINDEX no",
    "SetLinkMulticastDNS is IFINDEX no",
    "SetLinkDefaultRoute ib IFINDEX false",
    "SetLinkDomains ia(sb) IFINDEX 1 vm true",
    "SetLinkDNSEx ia(iayqs) IFINDEX 1 2 4 127 0 0 1 42069 ''",
    "RevertLink i IFINDEX",
];

/// And what it may not.
const MAY_NOT: [&str; 4] = [
    "SetLinkDNSSEC is IFINDEX no",
    "SetLinkDNSOverTLS is IFINDEX no",
    "SetLinkDNSSECNegativeTrustAnchors ias IFINDEX 1 vm",
    "RegisterService sssqqqaa{say} x x _x._tcp 1 1 1 0",
];

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_name_servers_user_may_wire_names_and_nobody_else_of_banger_may() {
    let host = Host::boot(Options::default());
    host.install();
    host.sh("ip link add link0 type bridge; ip link set link0 up");
    let index = host.sh("cat /sys/class/net/link0/ifindex");
    let ask = |user: &str, call: &str| {
        let call = call.replace("IFINDEX", index.trim());
        let manager = "org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager";
        let shell = format!("exec busctl call {manager} $0 2>&1");
        let shell =
            shell.replace("$0", &call.replacen("ia(sb)", "'ia(sb)'", 1).replacen("ia(iayqs)", "'ia(iayqs)'", 1));
        let shell = shell.replace("sssqqqaa{say}", "'sssqqqaa{say}'");
        let user = format!("--reuid={user}");
        let said = host.run(["setpriv", &user, "--regid=nogroup", "--clear-groups", "sh", "-c", &shell]);
        (said.code == 0, said.stdout)
    };
    let refused = |said: &str| said.contains("nteractive authentication required") || said.contains("ccess denied");
    for call in MAY {
        let (done, said) = ask("banger-dns", call);
        assert!(done, "{call}: {said}");
        for user in ["banger-network", "banger-vms", "banger-sessions", "alice", "nobody"] {
            let (done, said) = ask(user, call);
            assert!(!done && refused(&said), "{user}: {call}: {said}");
        }
    }
    for call in MAY_NOT {
        let (done, said) = ask("banger-dns", call);
        assert!(!done && refused(&said), "{call}: {said}");
    }
}
