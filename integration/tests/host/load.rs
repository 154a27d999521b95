//! Clients of the bus that mean harm: others are served, and nobody's memory grows for them.

use std::time::{Duration, Instant};

use banger_integration::host::{Host, Options, User, Who};

use crate::vms::ALICE;

const BOB: Who = Who::NoSession(User::Bob);

/// How much a service may grow for clients that do harm, in KiB.
const GROWTH: u64 = 64 << 10;

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
    let services = ["network", "storage", "images", "vms", "dns", "sessions"];
    for service in services {
        host.ok(["systemctl", "start", &format!("banger-{service}.service")]);
    }
    let each = services.map(|service| memory(&host, service, "VmRSS"));
    let all: u64 = each.iter().sum();
    println!("{services:?}: {each:?} KiB, together {all} KiB");
    assert!(all <= 60 << 10, "{all} KiB");
}
