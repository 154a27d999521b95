//! A VM's unit is the guest's, if worst comes to worst: whatever its keeper says, the supervisor serves others, ends it
//! in time, and keeps nothing of it.

use std::time::{Duration, Instant};

use banger_integration::host::Host;
use banger_integration::sample;

use crate::vms::{ALICE, host, machine};

/// See `examples/impostor.rs`.
const LIES: [&str; 14] = [
    "no-hello",
    "garbage-hello",
    "huge-hello",
    "version-of-tomorrow",
    "no-answer",
    "half-answers",
    "endless-sentences",
    "endless-answers",
    "hangs-up",
    "flood",
    "changes-its-mind",
    "dies-endlessly",
    "other-descriptors",
    "lying-agent",
];

/// Of all lies, a run takes about this many.
const SAMPLE: u64 = 5;
/// A boot may take this long here, and each of the questions that a liar does not answer ten seconds.
const DEADLINE: Duration = Duration::from_secs(6);
/// What the supervisor may hold more than before, whatever it was told.
const MEMORY_KIB: u64 = 16 * 1024;

fn supervisor(host: &Host) -> (u64, usize) {
    (host.memory_kib("vms", "VmRSS"), host.open_files("vms"))
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn whatever_a_keeper_says_others_are_served_and_it_is_ended_in_time() {
    let host = host();
    machine(&host, "honest");
    let impostor = host.example("impostor");
    host.sh(&format!("mount --bind {impostor} /usr/local/lib/banger/banger-keeper"));
    let deadline = format!("[Service]\nEnvironment=BANGER_BOOT_DEADLINE_SECONDS={}\n", DEADLINE.as_secs());
    host.write("/run/systemd/system/banger-vms.service.d/deadline.conf", deadline);
    host.sh("systemctl daemon-reload; systemctl restart banger-vms");
    let serves = || {
        let begun = Instant::now();
        host.ok_as(ALICE, ["timeout", "10", "banger", "vm", "exec", "honest", "--", "true"]);
        begun.elapsed()
    };
    serves();
    let (memory, fds) = supervisor(&host);
    for lie in sample("lies", SAMPLE, LIES.to_vec()) {
        host.write("/run/systemd/system/banger-vm@.service.d/lie.conf", format!("[Service]\nEnvironment=LIE={lie}\n"));
        host.sh("systemctl daemon-reload");
        let words = ["banger", "vm", "create", "--image", "debian-tiny", "--name", "liar"];
        let begun = Instant::now();
        let mut creating = host.errand(ALICE, words).limit(Duration::from_secs(90)).start();
        let (mut slowest, mut most) = (Duration::ZERO, 0);
        while !creating.has_ended() {
            slowest = slowest.max(serves());
            most = most.max(supervisor(&host).0);
        }
        let created = creating.end();
        println!(
            "{lie}: {} s, others {} ms, {} KiB more: {}",
            begun.elapsed().as_secs(),
            slowest.as_millis(),
            most.saturating_sub(memory),
            created.stderr.trim()
        );
        assert_eq!(created.code, 125, "{lie}: {}", created.stderr);
        assert!(created.stderr.len() < 4096 && !created.stderr.contains('\x1b'), "{lie}: {:?}", created.stderr);
        assert!(most < memory + MEMORY_KIB, "{lie}: {most} KiB, {memory} before");
        host.errand(ALICE, ["banger", "vm", "delete", "liar"]).limit(Duration::from_secs(60)).run();
        let left = host.ok(["systemctl", "list-units", "--all", "--plain", "--no-legend", "banger-vm@*.service"]);
        assert_eq!(left.lines().count(), 1, "{lie}: only the honest one is left: {left}");
    }
    let (now, open) = supervisor(&host);
    assert!(now < memory + MEMORY_KIB && open <= fds + 2, "{now} KiB, {memory} before; {open} fds, {fds} before");
    host.ok_as(ALICE, ["banger", "vm", "delete", "honest"]);
}
