//! Clients of the bus that mean harm: others are served, and nobody's memory grows for them.

use std::time::{Duration, Instant};

use banger_integration::host::{Host, Options, User, Who};
use banger_integration::within;

use crate::vms::{ALICE, boot_id, host, machine};

const BOB: Who = Who::NoSession(User::Bob);

/// How much a service may grow for clients that do harm, in KiB.
const GROWTH: u64 = 64 << 10;
/// The same while ten thousand calls wait for their answers: 10 KiB each. The bus lets a user have 256 connections, and
/// each of them 128 questions.
const CROWD: u64 = 100 << 10;
/// What it may have open more than before: jobs and connections of peers.
const FILES: usize = 8;
/// The longest sentence that is said of anything, with what the message needs around it.
const SENTENCE: usize = 4096 + 256;
/// Others are served within this time, whatever goes on.
const PATIENCE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(180);

const SERVICES: [&str; 6] = ["network", "storage", "images", "vms", "dns", "sessions"];

/// Speaks D-Bus by hand, as no library does: sends all its calls at once, and never reads an answer.
const FLOOD: &str = r#"
import os, socket, struct, time
def align(b, n): return b + b'\0' * (-len(b) % n)
def text(s): return struct.pack('<I', len(s)) + s.encode() + b'\0'
def call(serial, **fields):
    codes = dict(path=(1, 'o'), interface=(2, 's'), member=(3, 's'), destination=(6, 's'))
    array = b''
    for name, value in fields.items():
        code, kind = codes[name]
        array = align(array, 8) + bytes([code, 1]) + kind.encode() + b'\0' + text(value)
    return align(struct.pack('<4sIII', b'l\1\0\1', 0, serial, len(array)) + array, 8)
s = socket.socket(socket.AF_UNIX)
s.connect('/run/dbus/system_bus_socket')
s.sendall(b'\0AUTH EXTERNAL ' + str(os.getuid()).encode().hex().encode() + b'\r\n')
assert s.recv(512).startswith(b'OK')
s.sendall(b'BEGIN\r\n')
bus = 'org.freedesktop.DBus'
s.sendall(call(1, path='/org/freedesktop/DBus', interface=bus, member='Hello', destination=bus))
assert s.recv(512)
s.settimeout(5)
sent = 0
try:
    for sent in range(1, 10001):
        s.sendall(call(sent + 1, path='/dev/banger/Vms1', interface=bus + '.Introspectable', member='Introspect',
                       destination='dev.banger.Vms1'))
except OSError as error:
    print('cut off:', error)
print('sent', sent, flush=True)
time.sleep(600)
"#;

/// What a service has in memory (`VmRSS`) or has had at most (`VmHWM`), in KiB.
fn memory(host: &Host, service: &str, kind: &str) -> u64 {
    let status = host.sh(&format!("cat /proc/$(systemctl show --value -p MainPID banger-{service}.service)/status"));
    let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn who_sends_ten_thousand_calls_and_reads_no_answer_harms_nobody() {
    let host = Host::boot(Options::default());
    host.install();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let pid = || host.ok(["systemctl", "show", "--value", "--property=MainPID", "banger-vms.service"]);
    let (process, before) = (pid(), memory(&host, "vms", "VmRSS"));
    let mut flood = host.start_as(BOB, ["python3", "-c", FLOOD]);
    flood.says("sent 10000\n");
    let begun = Instant::now();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let took = begun.elapsed();
    let after = memory(&host, "vms", "VmHWM");
    println!("{before} KiB before, {after} KiB at most; a list meanwhile: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
    assert_eq!(pid(), process, "it was not started again");
}

/// The processes of the six services, in the order of `SERVICES`.
fn processes(host: &Host) -> String {
    let units = SERVICES.map(|service| format!("banger-{service}"));
    host.sh(&format!("systemctl show --value -p MainPID {}", units.join(" ")))
}

/// What they all have at most had in memory.
fn peaks(host: &Host) -> [u64; 6] {
    SERVICES.map(|service| memory(host, service, "VmHWM"))
}

/// How many files each has open.
fn open_files(host: &Host) -> [usize; 6] {
    let open = |service| format!("ls /proc/$(systemctl show --value -p MainPID banger-{service})/fd | wc -l");
    SERVICES.map(|service| host.sh(&open(service)).trim().parse().unwrap())
}

/// Runs `harm` beside all six services: they are the same ones after it, and hold not much more than before.
fn withstand(host: &Host, growth: u64, harm: impl FnOnce()) {
    for service in SERVICES {
        host.ok(["systemctl", "start", &format!("banger-{service}")]);
    }
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let (same, memory, files) = (processes(host), peaks(host), open_files(host));
    harm();
    assert_eq!(processes(host), same, "one of them was started again");
    let peaks = peaks(host);
    println!("{SERVICES:?}: {memory:?} KiB at most before, {peaks:?} after; {files:?} open files before");
    for (service, (before, after)) in SERVICES.into_iter().zip(memory.into_iter().zip(peaks)) {
        assert!(after < before + growth, "{service}: {before} KiB before, {after} KiB at most");
    }
    // What was removed is put away in the background.
    let few = || open_files(host).into_iter().zip(files).all(|(now, before)| now < before + FILES);
    within(PATIENCE, "no files stay open", few);
}

/// A list of Alice's meanwhile: how long it takes.
fn another_is_served(host: &Host) {
    let begun = Instant::now();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let took = begun.elapsed();
    println!("a list meanwhile: {took:?}");
    assert!(took < PATIENCE, "{took:?}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn ten_thousand_calls_at_once_are_each_answered() {
    let host = host();
    let meddler = host.example("meddler");
    withstand(&host, CROWD, || {
        // A connection of dbus-daemon's may have 128 questions open.
        let mut crowd = host.errand(BOB, [meddler.as_str(), "calls", "80", "125"]).limit(LIMIT).start();
        another_is_served(&host);
        let ended = crowd.has_ended();
        println!("the crowd had {}ended by then", if ended { "" } else { "not " });
        let report = crowd.end();
        println!("{}", report.stdout);
        let answers: Vec<(u64, &str)> = report
            .stdout
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(times, answer)| (times.parse().unwrap(), answer))
            .collect();
        // Told apart, so that a client knows that it may ask again.
        let known = ["dev.banger.Error.NotFound", "dev.banger.Error.Busy"];
        assert!(answers.iter().all(|(_, answer)| known.contains(answer)), "{}", report.stdout);
        assert_eq!(answers.iter().map(|(times, _)| times).sum::<u64>(), 10_000, "{}", report.stderr);
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_is_said_of_something_endless_has_an_end() {
    let host = host();
    let meddler = host.example("meddler");
    withstand(&host, GROWTH, || {
        let report = host.errand(ALICE, [meddler.as_str(), "long", "8"]).limit(LIMIT).ok();
        println!("{report}");
        let (tries, end) = report.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(end, "done");
        for line in tries.lines() {
            let said: usize = line.split([':', ' ']).nth(2).unwrap().parse().unwrap();
            // Whose property there is none is told so by the library.
            assert!(said < SENTENCE || line.ends_with("UnknownProperty"), "{line}");
        }
        another_is_served(&host);
    });
    let journal = host.sh("journalctl --output=cat --unit='banger-*' | wc -c");
    assert!(journal.trim().parse::<u64>().unwrap() < 1 << 20, "the journal has {journal} bytes");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn who_reads_neither_signals_nor_jobs_holds_nobody_up() {
    let host = host();
    let meddler = host.example("meddler");
    withstand(&host, GROWTH, || {
        let mut deaf = host.errand(BOB, [meddler.as_str(), "listens", "1000"]).limit(LIMIT).start();
        deaf.says("listens by 1000 rules");
        let mut idle = host.errand(ALICE, [meddler.as_str(), "works", "40"]).limit(LIMIT).start();
        idle.says("works on 40 jobs");
        let made = || host.ok_as(ALICE, ["banger", "vm", "list", "--all", "--json"]).matches("\"made-").count();
        within(PATIENCE, "what it had made is there", || made() == 40);
        for round in 0..20 {
            let name = format!("read-{round}");
            host.ok_as(ALICE, ["banger", "vm", "create", "--image", "debian-tiny", "--no-start", "--name", &name]);
            host.ok_as(ALICE, ["banger", "vm", "delete", &name]);
        }
        another_is_served(&host);
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn one_command_does_away_with_more_machines_than_a_connection_may_have_questions() {
    let host = host();
    let meddler = host.example("meddler");
    withstand(&host, GROWTH, || {
        let mut maker = host.errand(ALICE, [meddler.as_str(), "works", "160"]).limit(LIMIT).start();
        maker.says("works on 160 jobs");
        let there = || host.ok_as(ALICE, ["banger", "vm", "list", "--all", "--json"]).matches("\"made-").count();
        within(LIMIT, "all are there", || there() == 160);
        let words = ["banger", "vm", "delete"].map(str::to_owned).into_iter();
        let deleted = host.errand(ALICE, words.chain((0..160).map(|n| format!("made-{n}")))).limit(LIMIT).ok();
        assert_eq!((deleted.lines().count(), there()), (160, 0));
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn open_files_that_nobody_wants_are_closed() {
    let host = host();
    let meddler = host.example("meddler");
    withstand(&host, GROWTH, || {
        let report = host.errand(ALICE, [meddler.as_str(), "hands", "100"]).limit(LIMIT).ok();
        println!("{report}");
        assert!(!report.contains("an answer") && report.ends_with("done\n"), "{report}");
        another_is_served(&host);
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_disk_is_copied_from_a_file_and_from_nothing_else() {
    let host = host();
    let meddler = host.example("meddler");
    withstand(&host, GROWTH, || {
        let report = host.errand(Who::Root, [meddler.as_str(), "copies", "aaaaaaaaaa"]).limit(LIMIT).ok();
        println!("{report}");
        let tries: Vec<&str> = report.lines().collect();
        assert_eq!((tries.len(), tries.last()), (19, Some(&"done")), "{report}");
        assert!(tries[..18].iter().all(|line| line.contains(": dev.banger.Error.")), "{report}");
        let left = host.sh("find /var/lib/banger/storage/disks -name 'aaaaaaaaaa*'");
        assert_eq!(left, "", "whole or nothing");
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn nobody_speaks_in_anothers_name() {
    let host = host();
    let meddler = host.example("meddler");
    let id = machine(&host, "box");
    let boot = boot_id(&host, "box");
    withstand(&host, GROWTH, || {
        let mut forger = host.errand(BOB, [meddler.as_str(), "forges", &id]).limit(LIMIT).start();
        forger.says("it is delivered: true").says("told ");
        // Starts and ends are what systemd and the bus are listened to for; a lease, what ends with its client.
        let words = ["banger", "vm", "run", "--rm", "--image", "debian-tiny", "--", "sh", "-c", "sleep 1; exit 7"];
        for _ in 0..3 {
            let run = host.errand(ALICE, words).limit(LIMIT).run();
            assert_eq!(run.code, 7, "{}", run.stderr);
        }
        assert_eq!(boot_id(&host, "box"), boot);
        let address = host.ok(["dig", "+short", "-p", "42069", "@127.0.0.1", "box.vm"]);
        assert!(address.starts_with("172.16.0."), "{address}");
        another_is_served(&host);
        assert!(!forger.has_ended(), "it forged all the time");
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn nobody_takes_a_services_name_before_it_starts() {
    let host = Host::boot(Options::default());
    host.install();
    for service in ["Network1", "Storage1", "Images1", "Vms1", "Dns1", "Sessions1"] {
        let name = format!("dev.banger.{service}");
        let bus = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"];
        let words = [["busctl", "call"].as_slice(), &bus, &["RequestName", "su", &name, "0"]].concat();
        let answer = host.run_as(BOB, words);
        let refused = answer.stderr.contains("Access denied");
        assert!(answer.code != 0 && refused, "{name}: {}{}", answer.stdout, answer.stderr);
    }
    host.ok_as(ALICE, ["banger", "vm", "list"]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn six_services_at_rest_are_small() {
    let host = Host::boot(Options::default());
    host.install();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    for service in SERVICES {
        host.ok(["systemctl", "start", &format!("banger-{service}.service")]);
    }
    let each = SERVICES.map(|service| memory(&host, service, "VmRSS"));
    let all: u64 = each.iter().sum();
    println!("{SERVICES:?}: {each:?} KiB, together {all} KiB");
    assert!(all <= 60 << 10, "{all} KiB");
}
