//! The network without privilege: out it goes, in only where asked, and never to the host's own services.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use banger_integration::{Banger, Who, eventually, within};

/// Serves one line to everybody, in the background of a guest.
fn serve(banger: &Banger, vm: &str, port: u16, line: &str) {
    let server = format!(
        "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalPort => {port}, Listen => 5, ReuseAddr => 1) or die; \
         while (my $c = $l->accept) {{ print $c \"{line}\\n\"; close $c }}"
    );
    banger.ok([
        "vm",
        "exec",
        vm,
        "--",
        "sh",
        "-c",
        "setsid perl -e \"$1\" </dev/null >/dev/null 2>&1 &",
        "sh",
        &server,
    ]);
}

/// What a guest reads from an address, or why it cannot.
fn fetched_in(banger: &Banger, vm: &str, address: &str) -> String {
    let client = format!(
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => '{address}', Timeout => 3) \
         or do {{ print \"no: $@\"; exit }}; $SIG{{ALRM}} = sub {{ print 'silence'; exit }}; alarm 3; print <$s>"
    );
    banger.ok(["vm", "exec", vm, "--", "perl", "-e", &client])
}

/// What the host reads from an address; empty where nobody answers.
fn fetched(address: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut line = String::new();
    stream.read_to_string(&mut line).ok();
    line
}

/// Where a published port is reached on the host.
fn published(banger: &Banger, vm: &str, port: u16) -> String {
    format!("{}:{port}", banger.show(vm)["host_address"].as_str().unwrap())
}

fn dig(banger: &Banger, name: &str, tcp: bool) -> String {
    let doctor: Vec<serde_json::Value> = serde_json::from_str(&banger.run(["doctor", "--json"]).stdout).unwrap();
    let names = doctor.iter().find(|row| row["what"] == "names").unwrap()["found"].as_str().unwrap().to_owned();
    let (address, port) = names.rsplit_once(' ').unwrap().1.rsplit_once(':').unwrap();
    let mut dig = Command::new("dig");
    dig.args(["+noall", "+answer", "+comments", "+time=3", &format!("@{address}"), "-p", port, name]);
    let output = dig.args(tcp.then_some("+tcp")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn is_named(banger: &Banger, vm: &str) {
    let address = banger.show(vm)["host_address"].as_str().unwrap().to_owned();
    for tcp in [false, true] {
        // What a service that has just come knows, it has heard of the supervisor: within a second, and a process's start.
        within(Duration::from_secs(3), "the name is known", || {
            let answer = dig(banger, &format!("{vm}.vm"), tcp);
            answer.contains("status: NOERROR") && answer.contains(&format!("A\t{address}"))
        });
    }
}

fn is_nameless(banger: &Banger, vm: &str) {
    for tcp in [false, true] {
        eventually("the name is unknown", || dig(banger, &format!("{vm}.vm"), tcp).contains("status: NXDOMAIN"));
    }
}

fn ports_and_names(who: Who) {
    let banger = Banger::new(who);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "one", "-p", "8080:80", "-p", "8081:81"]);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "two", "-p", "8080:80"]);
    serve(&banger, "one", 80, "this is one");
    serve(&banger, "two", 80, "this is two");
    let (one, two) = (published(&banger, "one", 8080), published(&banger, "two", 8080));
    assert_ne!(one, two, "each machine has its own address on the host");
    eventually("the first is reached", || fetched(&one) == "this is one\n");
    eventually("the other is reached on the same port", || fetched(&two) == "this is two\n");
    assert_eq!(fetched(&published(&banger, "two", 80)), "", "what is not published is closed");
    is_named(&banger, "one");
    is_named(&banger, "two");
    assert!(dig(&banger, "three.vm", false).contains("status: NXDOMAIN"));

    let other = banger.show("two")["address"].as_str().unwrap().to_owned();
    let answer = fetched_in(&banger, "one", &format!("{other}:80"));
    assert!(answer.starts_with("no:"), "guests do not reach each other: {answer:?}");

    banger.kill_services();
    banger.list();
    eventually("ports are there after the services' death", || fetched(&one) == "this is one\n");
    eventually("names are there after the services' death", || dig(&banger, "one.vm", false).contains("NOERROR"));
    is_named(&banger, "two");

    banger.ok(["vm", "stop", "one"]);
    is_nameless(&banger, "one");
    assert_eq!(fetched(&one), "", "a machine that is stopped publishes nothing");
    banger.ok(["vm", "start", "one"]);
    assert_eq!(published(&banger, "one", 8080), one, "its address is kept");
    is_named(&banger, "one");
    banger.ok(["vm", "delete", "one", "two"]);
    is_nameless(&banger, "one");
}

#[test]
fn ports_and_names_belong_to_machines_that_run() {
    ports_and_names(Who::Me);
}

#[test]
fn ports_and_names_of_an_ordinary_users_machines() {
    match Who::all().contains(&Who::User) {
        true => ports_and_names(Who::User),
        false => println!("skipped: only root can become another user"),
    }
}

/// The host's own addresses but those of the loopback interface.
fn addresses_of_the_host() -> Vec<String> {
    let output = Command::new("hostname").arg("-I").output().unwrap();
    let all = String::from_utf8(output.stdout).unwrap();
    all.split_whitespace().filter(|a| a.contains('.')).map(str::to_owned).collect()
}

fn the_loopback_is_closed(who: Who) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(|c| drop(c.unwrap().write_all(b"secret\n"))));
    assert_eq!(fetched(&format!("127.0.0.1:{port}")), "secret\n", "the host itself reaches it");
    let banger = Banger::new(who);
    banger.boot("box");
    let host_address = banger.show("box")["host_address"].as_str().unwrap().to_owned();
    let fixed = ["127.0.0.1", "10.0.2.2", "10.0.2.3", "10.0.2.100", "172.16.0.1", "0.0.0.0"].map(str::to_owned);
    std::thread::scope(|scope| {
        for address in fixed.into_iter().chain(addresses_of_the_host()).chain([host_address]) {
            let banger = &banger;
            scope.spawn(move || {
                let answer = fetched_in(banger, "box", &format!("{address}:{port}"));
                println!("{address}: {answer}");
                assert!(answer.starts_with("no:"), "{address} is no way to the host's loopback: {answer:?}");
            });
        }
    });
}

#[test]
fn a_guest_does_not_reach_what_listens_on_the_hosts_loopback() {
    Who::all().into_iter().for_each(the_loopback_is_closed);
}

#[test]
fn a_guest_reaches_the_world_by_name() {
    let world = "deb.debian.org:80";
    let reached = world.to_socket_addrs().ok().and_then(|mut a| a.next());
    if reached.is_none_or(|a| TcpStream::connect_timeout(&a, Duration::from_secs(5)).is_err()) {
        return println!("skipped: the host itself does not reach {world}");
    }
    let banger = Banger::new(Who::Me);
    banger.boot("box");
    let head = "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => 'deb.debian.org:80', Timeout => 20) \
                or die \"no: $@\"; print $s \"HEAD / HTTP/1.0\\r\\nHost: deb.debian.org\\r\\n\\r\\n\"; print scalar <$s>";
    let asked = || banger.run(["vm", "exec", "box", "--", "perl", "-e", head]);
    assert!(asked().stdout.starts_with("HTTP/1."), "{:?}", asked());
    banger.ok(["vm", "set", "box", "--no-nat"]);
    assert!(asked().code != 0, "{:?}", asked());
    banger.ok(["vm", "set", "box", "--nat"]);
    assert!(asked().stdout.starts_with("HTTP/1."), "{:?}", asked());
}

#[test]
fn no_network_is_none() {
    let banger = Banger::new(Who::Me);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "box", "--no-network"]);
    assert_eq!(banger.sh("box", "ls /sys/class/net"), "lo\n");
    let shown = banger.show("box");
    assert_eq!((&shown["address"], &shown["host_address"]), (&"".into(), &"".into()));
    assert!(shown["notes"].as_array().unwrap().is_empty(), "it is what was asked for: {shown}");
    is_nameless(&banger, "box");
}

#[test]
fn where_the_tun_device_is_missing_machines_start_without_network_and_say_so() {
    let who = *Who::all().last().unwrap();
    let banger = Banger::new(who);
    // Whoever makes a namespace is root.
    if who == Who::Me {
        return println!("skipped: only root can take the TUN device away");
    }
    let banger = banger.mounting("mount -t tmpfs none /dev/net");
    let made = banger.run(["vm", "create", "--image", "debian-tiny", "--name", "box"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(made.stderr.contains("note: no network: "), "{}", made.stderr);
    assert!(banger.show("box")["notes"][0].as_str().unwrap().starts_with("no network: "), "{}", banger.show("box"));
    assert_eq!(banger.sh("box", "ls /sys/class/net"), "lo\n");
    let doctor = banger.ok(["doctor"]);
    let row = doctor.lines().find(|line| line.contains("VMs start without one")).expect("doctor tells");
    assert!(row.contains("/dev/net/tun") && row.contains("modprobe tun"), "{row}");
}
