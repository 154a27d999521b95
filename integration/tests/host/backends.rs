//! One life of a machine, whatever runs it: the same for every backend that a host has.

use std::path::Path;
use std::time::{Duration, Instant};

use banger_integration::host::{Host, Who};
use banger_integration::{eventually, within};
use serde_json::Value;

use crate::vms::{ALICE, boot_id, host};

/// Where the Firecracker to test with is.
const FIRECRACKER: &str = "BANGER_TEST_FIRECRACKER";
/// Emulated twice over, everything takes its time.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_machine_lives_with_qemu_and_is_refused_with_what_is_not_there() {
    let host = host();
    let words = ["banger", "vm", "create", "--backend", "firecracker", "--image", "debian-tiny", "--name", "box"];
    let refused = host.run_as(ALICE, words);
    assert!(refused.code != 0 && refused.stderr.contains("Firecracker is not installed"), "{}", refused.stderr);
    assert_eq!(host.ok_as(ALICE, ["banger", "vm", "list", "--all", "--json"]).trim(), "[]");
    let rows = doctor(&host);
    assert_eq!(verdict(&rows, "backend firecracker"), "warn");
    assert_eq!(verdict(&rows, "backend qemu-tcg"), "pass");
    life(&host, "qemu", "boot");
    life(&host, "qemu", "template");
}

/// Where the processor is the host's own, and the clock KVM's.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
#[cfg_attr(root, ignore = "needs a machine with little else to do: --run-ignored only")]
fn a_guest_goes_on_under_kvm() {
    let host = Host::boot_machine();
    host.install();
    host.seed_images();
    println!("{:#?}", doctor(&host));
    create(&host, "qemu", "template");
    let box_ = shown(&host, "box");
    assert_eq!((&box_["backend"], &box_["started"]), (&"qemu-kvm".into(), &"template".into()), "{box_}");
    assert_eq!(guest(&host, "echo here"), "here\n");
    slowly(&host, &["delete", "box"]);
    // From a run's order to its end, in turns.
    let took = |how: &[&str]| {
        let words = [&["run", "--rm", "--backend", "qemu", "--image", "debian-tiny"], how, &["--", "true"]].concat();
        let begun = Instant::now();
        slowly(&host, &words);
        begun.elapsed().as_secs_f64()
    };
    let (mut warm, mut cold): (Vec<f64>, Vec<f64>) = (0..5).map(|_| (took(&[]), took(&["--cold"]))).unzip();
    warm.sort_by(f64::total_cmp);
    cold.sort_by(f64::total_cmp);
    println!("from a template {warm:.2?} s, cold {cold:.2?} s: {:.3}", warm[2] / cold[2]);
    // Services and client are emulated here, and take most of it.
    assert!(warm[2] < cold[2], "{warm:?} {cold:?}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
#[cfg_attr(root, ignore = "needs a Firecracker: 'make test-firecracker'")]
fn a_machine_lives_with_firecracker_as_with_qemu() {
    let host = Host::boot_machine();
    host.install();
    host.seed_images();
    install_firecracker(&host);
    let rows = doctor(&host);
    // Whether QEMU's own guest is quick enough under KVM depends on what else the machine does.
    for backend in ["backend", "backend firecracker", "backend qemu-tcg"] {
        assert_eq!(verdict(&rows, backend), "pass", "{rows:#?}");
    }
    life(&host, "firecracker", "boot");
    walls(&host);
    life(&host, "qemu", "boot");
}

/// Puts it where it is found without being named.
fn install_firecracker(host: &Host) {
    let path = std::env::var(FIRECRACKER).unwrap_or_else(|_| panic!("{FIRECRACKER} is not set: it says where one is"));
    let program = std::fs::read(Path::new(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let words = ["install", "--mode=0755", "/dev/stdin", "/usr/local/bin/firecracker"];
    host.errand(Who::Root, words).stdin(program).ok();
    println!("{}", host.ok(["firecracker", "--version"]).lines().next().unwrap());
}

fn doctor(host: &Host) -> Vec<Value> {
    serde_json::from_str(&host.run_as(ALICE, ["banger", "doctor", "--json"]).stdout).unwrap()
}

fn verdict<'a>(rows: &'a [Value], what: &str) -> &'a str {
    let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no {what} in {rows:#?}"));
    row["verdict"].as_str().unwrap()
}

fn shown(host: &Host, name: &str) -> Value {
    host.ok_as(ALICE, ["banger", "vm", "show", name, "--json"]).parse().unwrap()
}

/// Has Alice's banger do something that takes as long as a boot.
fn slowly(host: &Host, words: &[&str]) -> String {
    host.errand(ALICE, ["banger", "vm"].iter().chain(words)).limit(PATIENCE).ok()
}

/// Makes the machine, by booting it or from a template.
fn create(host: &Host, backend: &str, started: &str) {
    let words = ["create", "--backend", backend, "--image", "debian-tiny", "--name", "box"];
    if started == "boot" {
        slowly(host, &[&words[..], &["--cold"]].concat());
    } else {
        let run = ["run", "--rm", "--backend", backend, "--image", "debian-tiny", "--", "true"];
        slowly(host, &run);
        let made = || host.ok_as(ALICE, ["banger", "template", "list", "--json"]).contains(backend);
        within(PATIENCE, "a template is made", made);
        slowly(host, &words);
    }
    assert_eq!(shown(host, "box")["started"], started, "{}", shown(host, "box"));
}

fn guest(host: &Host, script: &str) -> String {
    slowly(host, &["exec", "box", "--", "sh", "-ec", script])
}

/// Boot, command, console, network, devices, the supervisor's death, stop, start, the guest's own end and its
/// kernel's, delete.
fn life(host: &Host, backend: &str, started: &str) {
    let run =
        ["banger", "vm", "run", "--rm", "--backend", backend, "--image", "debian-tiny", "--", "sh", "-c", "exit 7"];
    let run = host.errand(ALICE, run).limit(PATIENCE).run();
    assert_eq!(run.code, 7, "{}", run.stderr);
    create(host, backend, started);
    let box_ = shown(host, "box");
    assert!(box_["backend"].as_str().unwrap().starts_with(backend), "{box_}");
    assert_eq!((&box_["backend_wanted"], &box_["backend_reason"] != ""), (&backend.into(), true), "{box_}");
    println!("{}: {}", box_["backend"], box_["backend_reason"]);
    // Whoever waits for a guest's state is told so on its command line; the guest's first words are there in both.
    let goes_on = host.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").contains(" -incoming ");
    assert_eq!(goes_on, started == "template");
    assert!(host.ok_as(ALICE, ["banger", "vm", "logs", "box"]).contains("Linux version"));
    // Nobody listens there, which only the guest itself can say so soon.
    let address = box_["address"].as_str().unwrap();
    let connect = format!("import socket; s = socket.socket(); s.settimeout(20); s.connect(('{address}', 1))");
    let refused = host.run(["python3", "-c", &connect]);
    assert!(refused.stderr.contains("ConnectionRefusedError"), "{}", refused.stderr);
    // virtio's numbers: 4 is the source of entropy, 5 a balloon.
    let devices = guest(host, "cat /sys/bus/virtio/devices/*/device");
    assert!(devices.contains("0x0004") && !devices.contains("0x0005"), "{devices}");
    let boot = boot_id(host, "box");
    host.ok(["systemctl", "kill", "--signal=KILL", "banger-vms.service"]);
    eventually("the machine is found again", || shown(host, "box")["state"] == "running");
    assert_eq!(boot_id(host, "box"), boot);
    guest(host, "echo kept >/root/file");
    slowly(host, &["stop", "box"]);
    let stopped = shown(host, "box");
    assert_eq!((&stopped["state"], &stopped["detail"]), (&"stopped".into(), &"".into()), "{stopped}");
    slowly(host, &["start", "box"]);
    assert_ne!(boot_id(host, "box"), boot);
    assert_eq!(guest(host, "cat /root/file"), "kept\n");
    // What a person types in it.
    host.run_as(ALICE, ["banger", "vm", "exec", "box", "--", "sh", "-c", "echo o >/proc/sysrq-trigger; sleep 60"]);
    within(PATIENCE, "the guest's own end is told", || shown(host, "box")["detail"] == "the guest has powered off");
    slowly(host, &["start", "box"]);
    host.run_as(ALICE, ["banger", "vm", "exec", "box", "--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]);
    let detail = || shown(host, "box")["detail"].as_str().unwrap().to_owned();
    within(PATIENCE, "a kernel's end is told", || detail().starts_with("the guest's kernel has panicked"));
    slowly(host, &["delete", "box"]);
    let units = || host.ok(["systemctl", "list-units", "--all", "--plain", "--no-legend", "banger-vm@*"]);
    eventually("no unit is left", || units().is_empty());
    let taps = host.sh("ip -o link | grep -v warm | grep -c ': bg-' || true");
    assert_eq!(taps.trim(), "0", "devices are left");
}

/// What holds Firecracker in: its unit, and in it its own filters.
fn walls(host: &Host) {
    create(host, "firecracker", "boot");
    let unit = format!("banger-vm@{}.service", shown(host, "box")["id"].as_str().unwrap());
    let keeper = host.ok(["systemctl", "show", "--value", "--property=MainPID", &unit]).trim().to_owned();
    let vmm = host.ok(["pgrep", "--parent", &keeper]).trim().to_owned();
    let in_vmm = |script: &str| host.sh(&format!("pid={vmm}; {script}"));
    assert_eq!(in_vmm("cat /proc/$pid/comm"), "firecracker\n");
    assert_ne!(in_vmm("readlink /proc/$pid/ns/net"), host.sh("readlink /proc/1/ns/net"), "it sees the host's network");
    assert_eq!(in_vmm("cut -d: -f1 /proc/$pid/net/dev | tail -n +3 | tr -d ' '"), "lo\n");
    assert_eq!(in_vmm("stat --format '%t,%T' /proc/$pid/root/dev/net/tun"), "1,3\n", "it is /dev/null");
    for line in in_vmm("grep -h -e '^Cap[EPB]' -e NoNewPrivs /proc/$pid/status").lines() {
        let value = line.split_whitespace().last().unwrap();
        assert!(["0000000000000000", "1"].contains(&value), "{line}");
    }
    // The unit's filters, which the keeper has too; the one that asks for the TAP; and its own, in each thread.
    let filters = |path: &str| -> Vec<u32> {
        let lines = host.sh(&format!("grep -h Seccomp_filters {path}"));
        lines.lines().map(|line| line.split_whitespace().last().unwrap().parse().unwrap()).collect()
    };
    let of_unit = filters(&format!("/proc/{keeper}/status"))[0];
    let of_vmm = filters(&format!("/proc/{vmm}/task/*/status"));
    assert!(of_vmm.len() > 3 && of_vmm.iter().all(|filters| *filters == of_unit + 2), "{of_unit} {of_vmm:?}");
    // Neither its sockets nor anything else of it has a name.
    assert_eq!(
        in_vmm("ls -A /proc/$pid/root/tmp /proc/$pid/root/run/banger/vm | grep -v -e : -e '^$'"),
        format!("{}.sock\n", unit.trim_start_matches("banger-vm@").trim_end_matches(".service"))
    );
    // A VMM that is killed is told, and what it leaves is put away.
    host.ok(["kill", "-KILL", &vmm]);
    eventually("its death is told", || shown(host, "box")["detail"] == "the VMM was ended by signal 9");
    slowly(host, &["delete", "box"]);
}
