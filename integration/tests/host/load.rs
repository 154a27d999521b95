//! Clients of the bus that mean harm: others are served, and nobody's memory grows for them.

use std::time::{Duration, Instant};

use banger_integration::host::{Errand, Host, NAMES, Options, SERVICES, User, Who, units};
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

/// A meddler (`examples/meddler.rs`) of somebody's, with words for it.
fn meddler<'h>(host: &'h Host, who: Who, words: &[&str]) -> Errand<'h> {
    let program = host.example("meddler");
    host.errand(who, [&[program.as_str()], words].concat()).limit(LIMIT)
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn who_sends_ten_thousand_calls_and_reads_no_answer_harms_nobody() {
    let host = Host::boot(Options::default());
    host.install();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let pid = || host.ok(["systemctl", "show", "--value", "--property=MainPID", "banger-vms.service"]);
    let (process, before) = (pid(), host.memory_kib("vms", "VmRSS"));
    let mut flood = host.start_as(BOB, ["python3", "-c", FLOOD]);
    flood.says("sent 10000\n");
    let begun = Instant::now();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let took = begun.elapsed();
    let after = host.memory_kib("vms", "VmHWM");
    println!("{before} KiB before, {after} KiB at most; a list meanwhile: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
    assert_eq!(pid(), process, "it was not started again");
}

/// The processes of the six services.
fn processes(host: &Host) -> String {
    host.sh(&format!("systemctl show --value -p MainPID {}", units().join(" ")))
}

/// Runs `harm` beside all six services: they are the same ones after it, and hold not much more than before.
fn withstand(host: &Host, growth: u64, harm: impl FnOnce()) {
    host.start_services();
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let memory = || SERVICES.map(|service| host.memory_kib(service, "VmHWM"));
    let open = || SERVICES.map(|service| host.open_files(service));
    let (same, memory_before, files) = (processes(host), memory(), open());
    harm();
    assert_eq!(processes(host), same, "one of them was started again");
    let peaks = memory();
    println!("{SERVICES:?}: {memory_before:?} KiB at most before, {peaks:?} after; {files:?} open files before");
    for (service, (before, after)) in SERVICES.into_iter().zip(memory_before.into_iter().zip(peaks)) {
        assert!(after < before + growth, "{service}: {before} KiB before, {after} KiB at most");
    }
    // What was removed is put away in the background.
    let few = || open().into_iter().zip(files).all(|(now, before)| now < before + FILES);
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
    withstand(&host, CROWD, || {
        // A connection of dbus-daemon's may have 128 questions open.
        let mut crowd = meddler(&host, BOB, &["calls", "80", "125"]).start();
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
    withstand(&host, GROWTH, || {
        let report = meddler(&host, ALICE, &["long", "8"]).ok();
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
    withstand(&host, GROWTH, || {
        let mut deaf = meddler(&host, BOB, &["listens", "1000"]).start();
        deaf.says("listens by 1000 rules");
        let mut idle = meddler(&host, ALICE, &["works", "40"]).start();
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
fn who_ends_many_jobs_loses_their_own_and_nobody_elses() {
    const PULLS: &str = "for _ in $(seq 70); do busctl call dev.banger.Images1 /dev/banger/Images1 \
                         dev.banger.Images1.Manager Pull 'sa{sv}' debian-tiny 0; done";
    let host = host();
    let pulls = |who: Who| {
        let said = host.ok_as(who, ["sh", "-c", PULLS]);
        said.lines().map(|line| line.trim_start_matches("o ").trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    let state = |who: Who, job: &str| {
        host.run_as(who, ["busctl", "get-property", "dev.banger.Images1", job, "dev.banger.Job1", "State"]).stdout
    };
    let theirs = pulls(ALICE);
    within(PATIENCE, "only the last are kept", || state(ALICE, &theirs[5]).is_empty());
    let mine = pulls(Who::Root);
    within(PATIENCE, "only the last are kept", || state(Who::Root, &mine[5]).is_empty());
    for (who, jobs) in [(ALICE, theirs), (Who::Root, mine)] {
        assert_eq!(
            (state(who, &jobs[6]), state(who, &jobs[69])),
            ("s \"done\"\n".into(), "s \"done\"\n".into()),
            "{who}"
        );
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn one_command_does_away_with_more_machines_than_a_connection_may_have_questions() {
    let host = host();
    withstand(&host, GROWTH, || {
        let mut maker = meddler(&host, ALICE, &["works", "160"]).start();
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
    withstand(&host, GROWTH, || {
        let report = meddler(&host, ALICE, &["hands", "100"]).ok();
        println!("{report}");
        assert!(!report.contains("an answer") && report.ends_with("done\n"), "{report}");
        another_is_served(&host);
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_disk_is_copied_from_a_file_and_from_nothing_else() {
    let host = host();
    withstand(&host, GROWTH, || {
        let report = meddler(&host, Who::Root, &["copies", "aaaaaaaaaa"]).ok();
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
    let id = machine(&host, "box");
    let boot = boot_id(&host, "box");
    withstand(&host, GROWTH, || {
        let mut forger = meddler(&host, BOB, &["forges", &id]).start();
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
    for service in NAMES {
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
    host.start_services();
    let each = SERVICES.map(|service| host.memory_kib(service, "VmRSS"));
    let all: u64 = each.iter().sum();
    println!("{SERVICES:?}: {each:?} KiB, together {all} KiB");
    assert!(all <= 60 << 10, "{all} KiB");
}
