//! Nothing of a user's dies with a service: killed, stopped, restarted or frozen, one and all.

use std::time::{Duration, Instant};

use banger_integration::host::{Host, NAMES, SERVICES, units};
use banger_integration::{eventually, sample, within};

use crate::vms::{ALICE, boot_id, host, machine};

/// A server in the guest that is in no hurry: a block of so many bytes twenty times a second, behind its number.
const BLOCKS: usize = 900;
const BLOCK: usize = 16384;
const POUR: &str = r#"use IO::Socket::INET; $| = 1;
my $s = IO::Socket::INET->new(LocalPort => 3000, Listen => 5, ReuseAddr => 1) or die $!;
print "serves\n";
my $c = $s->accept; $c->autoflush(1);
while (<$c>) { last if /^\r?$/ }
print $c "HTTP/1.0 200 OK\r\n\r\n";
for my $i (1 .. $ARGV[0]) { print $c "$i\n", "x" x $ARGV[1], "\n"; select undef, undef, undef, 0.05 }"#;

/// How long the name of the machine is not answered, now that a service is there again.
fn nameless(host: &Host, unit: &str) -> Duration {
    within(Duration::from_secs(20), "it is up", || host.run(["systemctl", "is-active", "--quiet", unit]).code == 0);
    let dig = ["dig", "+short", "+tries=1", "+time=1", "-p", "42069", "@127.0.0.1", "box.vm"];
    within(Duration::from_secs(20), "its name is answered", || host.run(dig).stdout.starts_with("172.16."))
}

/// Asks until an answer comes: who calls a service that is being started waits for it, and may ask again.
fn still_the_same(host: &Host, boot: &str) {
    let words = ["banger", "vm", "exec", "box", "--", "cat", "/proc/sys/kernel/random/boot_id"];
    within(Duration::from_secs(20), "the machine answers", || host.run_as(ALICE, words).stdout.trim() == boot);
}

/// Installs another build over the one that runs: every program has other bytes.
fn upgrade(host: &Host) {
    let pids = || host.sh("systemctl show --value -p MainPID banger-vms banger-network banger-storage");
    let before = pids();
    host.sh("cp -r /mnt/dist /root/newer
             for program in /root/newer/lib/banger/banger-* /root/newer/bin/banger; do echo newer >>$program; done
             echo newer >/root/newer/lib/banger/commit
             /root/newer/bin/banger system install");
    assert_ne!(pids(), before, "the services are not the newer ones");
    let status = host.ok(["banger", "system", "status"]);
    assert!(status.contains("(newer)"), "{status}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_machine_and_its_commands_outlive_every_service() {
    let host = host();
    machine(&host, "box");
    let boot = boot_id(&host, "box");
    // Most of a minute of numbers, and a transfer, both under way all the time.
    let count = "for i in $(seq 1 900); do echo $i; sleep 0.05; done";
    let words = ["banger", "vm", "exec", "box", "--", "sh", "-c", count];
    let mut counter = host.errand(ALICE, words).limit(Duration::from_secs(180)).start();
    counter.says("1\n");
    let pour = "dd if=/dev/zero bs=64k count=320 2>/dev/null | banger vm exec box -- sh -c 'sleep 5; cat | wc -c'";
    let transfer = host.errand(ALICE, ["sh", "-c", pour]).limit(Duration::from_secs(180)).start();

    let [blocks, block] = [BLOCKS, BLOCK].map(|number| number.to_string());
    let words = ["banger", "vm", "exec", "box", "--", "perl", "-e", POUR, &blocks, &block];
    let mut server = host.errand(ALICE, words).limit(Duration::from_secs(180)).start();
    server.says("serves");
    let fetch = "curl --silent --show-error --max-time 170 --output /tmp/poured http://$(dig +short -p 42069 @127.0.0.1 box.vm):3000";
    let over_the_network = host.errand(ALICE, ["sh", "-c", fetch]).limit(Duration::from_secs(180)).start();

    for unit in units().iter().map(String::as_str) {
        host.ok(["systemctl", "kill", "--signal=KILL", unit]);
        still_the_same(&host, &boot);
        let killed = nameless(&host, unit);
        host.ok(["systemctl", "restart", unit]);
        still_the_same(&host, &boot);
        let restarted = nameless(&host, unit);
        println!("{unit}: its name came back {killed:?} after its death, {restarted:?} after its restart");
        assert!(killed < Duration::from_secs(1) && restarted < Duration::from_secs(1), "{unit}");
        host.ok(["systemctl", "stop", unit]);
        // What was stopped is started by whoever asks for it.
        still_the_same(&host, &boot);
        // Who asks for a name asks no service of the bus.
        host.ok(["systemctl", "start", unit]);
    }
    let all = units();
    for verb in ["kill", "restart"] {
        let mut words = vec!["systemctl", verb];
        words.extend((verb == "kill").then_some("--signal=KILL"));
        words.extend(all.iter().map(String::as_str));
        host.ok(words);
        still_the_same(&host, &boot);
    }
    upgrade(&host);
    still_the_same(&host, &boot);
    // The bus itself: who was connected to it has to come back by itself.
    host.ok(["systemctl", "restart", "dbus"]);
    still_the_same(&host, &boot);
    assert_eq!(transfer.end().stdout.trim(), (320 * 65536).to_string());
    let fetched = over_the_network.end();
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    let poured: usize = (1..=BLOCKS).map(|number| number.to_string().len() + BLOCK + 2).sum();
    assert_eq!(host.sh("wc -c </tmp/poured; grep -c '^[0-9]' /tmp/poured"), format!("{poured}\n{BLOCKS}\n"));
    let counted = counter.end();
    assert_eq!(counted.code, 0, "{}", counted.stderr);
    let expected: String = (1..=900).map(|i| format!("{i}\n")).collect();
    assert_eq!(counted.stdout, expected, "not a number is lost or doubled");
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn whoever_waits_for_a_job_gets_what_was_asked_for_though_its_service_dies_meanwhile() {
    let host = host();
    // Killed or told to stop, at other moments each time: while it is made, while it boots, while it goes.
    for (round, wait_ms) in [20, 60, 150, 400, 1000, 2000].into_iter().enumerate() {
        let end =
            if round % 2 == 0 { "systemctl kill --signal=KILL banger-vms" } else { "systemctl restart banger-vms" };
        let soon = format!("sleep {}; {end}", f64::from(wait_ms) / 1000.0);
        for verb in ["create --image debian-tiny --name box", "stop box", "start box", "delete box"] {
            let line = format!("banger vm {verb} >/tmp/said 2>&1");
            let mut asked = host.errand(ALICE, ["sh", "-c", &line]).limit(Duration::from_secs(60)).start();
            // The job is there: before that, nobody has promised anything.
            within(Duration::from_secs(20), "the job is there, or has been", || {
                asked.has_ended() || host.run(["grep", "-rq", "\"end\":null", "/run/banger/vms/jobs"]).code == 0
            });
            host.sh(&soon);
            let done = asked.end();
            assert_eq!(done.code, 0, "{verb}, after {wait_ms} ms {end}: {}", host.sh("cat /tmp/said"));
        }
        assert_eq!(host.ok_as(ALICE, ["banger", "vm", "list", "--json"]).trim(), "[]");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_service_that_is_killed_thirty_times_in_a_row_is_still_started() {
    let host = host();
    for (name, unit) in NAMES.into_iter().zip(units()) {
        let (service, path) = (format!("dev.banger.{name}"), format!("/dev/banger/{name}"));
        let ping = ["busctl", "call", &service, &path, "org.freedesktop.DBus.Peer", "Ping"];
        for round in 0..30 {
            // One that is dying may still take the question.
            within(Duration::from_secs(10), "it is started", || host.run(ping).code == 0);
            host.ok(["systemctl", "kill", "--signal=KILL", &unit]);
            assert!(!host.failed_units().contains(&unit), "{unit} after {round}");
        }
    }
    eventually("they are up again", || host.run_as(ALICE, ["banger", "vm", "list"]).code == 0);
}

/// Of those that can be frozen, a run takes about this many.
const FROZEN: u64 = 2;
/// `WatchdogSec=` and `TimeoutStopSec=` of the units, and a start.
const THAWED: Duration = Duration::from_secs(60 + 15 + 15);
/// The longest of what waits for others: a stop asks the guest, its unit and the network, each with a deadline.
const BOUNDED: Duration = Duration::from_secs(120);

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn whoever_is_frozen_hangs_nobody_and_is_brought_back_by_its_watchdog() {
    let host = host();
    machine(&host, "box");
    let boot = boot_id(&host, "box");
    let each = SERVICES.map(|service| vec![service]);
    let cases = each.into_iter().chain([SERVICES.to_vec()]).collect();
    host.start_services();
    let count = "i=1; while [ ! -e /tmp/stop ]; do echo $i; i=$((i + 1)); sleep 0.05; done";
    let words = ["banger", "vm", "exec", "box", "--", "sh", "-c", count];
    let mut counter = host.errand(ALICE, words).limit(Duration::from_secs(900)).start();
    counter.says("1\n");
    let sample = sample("frozen", FROZEN, cases);
    let chosen: Vec<String> = sample.iter().flatten().map(|service| format!("banger-{service}.service")).collect();
    for frozen in sample {
        let units: Vec<String> = frozen.iter().map(|service| format!("banger-{service}.service")).collect();
        let units: Vec<&str> = units.iter().map(String::as_str).collect();
        let pids = || -> Vec<String> {
            let shown = host.ok([&["systemctl", "show", "--value", "--property=MainPID"], units.as_slice()].concat());
            shown.split_whitespace().map(str::to_owned).collect()
        };
        let before = pids();
        host.ok([&["systemctl", "kill", "--signal=STOP"], units.as_slice()].concat());
        let begun = Instant::now();
        // Others are served: what needs none of it is as quick as ever.
        if !frozen.contains(&"vms") && !frozen.contains(&"sessions") {
            assert_eq!(boot_id(&host, "box"), boot);
            host.ok_as(ALICE, ["banger", "vm", "list"]);
            assert!(begun.elapsed() < Duration::from_secs(10), "{frozen:?}: {:?}", begun.elapsed());
        }
        // What needs it comes to an end: it waits for whoever takes its place, or says what is missing.
        let words = ["banger", "vm", "run", "--rm", "--image", "debian-tiny", "--", "sh", "-c", "exit 7"];
        let run = host.errand(ALICE, words).limit(BOUNDED).run();
        println!("{frozen:?}: a run ended {} after {:?}: {}", run.code, begun.elapsed(), run.stderr.trim());
        assert!(run.code == 7 || (run.code == 125 && !run.stderr.is_empty()), "{} {}", run.code, run.stderr);
        let left = THAWED.saturating_sub(begun.elapsed());
        within(left, "the watchdog has brought it back", || {
            let now = pids();
            now.len() == before.len() && now.iter().zip(&before).all(|(now, before)| now != before && now != "0")
        });
        still_the_same(&host, &boot);
        let gone = || host.ok_as(ALICE, ["banger", "vm", "list", "--all", "--json"]).matches("\"id\"").count() == 1;
        within(Duration::from_secs(60), "what was begun is gone", gone);
        assert_eq!(host.errand(ALICE, words).limit(BOUNDED).run().code, 7);
    }
    // By now all others have lived longer than their watchdogs wait.
    let bitten = host.sh("journalctl --output=cat --unit='banger-*' --grep='Watchdog timeout' || true");
    assert!(
        !bitten.is_empty() && bitten.lines().all(|line| chosen.iter().any(|unit| line.starts_with(unit))),
        "{bitten}"
    );
    host.ok_as(ALICE, ["banger", "vm", "exec", "box", "--", "touch", "/tmp/stop"]);
    let counted = counter.end();
    let numbers: Vec<usize> = counted.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert!(counted.code == 0 && numbers.len() > 200, "{} numbers; {}", numbers.len(), counted.stderr);
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "not a number is lost or doubled");
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
}
