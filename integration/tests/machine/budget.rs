//! What a start is made of, in numbers that no machine's speed changes. Who adds a call, a process or a sync to it changes
//! them here, and knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use banger_integration::{Banger, Running, Who, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Calls of methods that belong to the trace of one `vm run --rm -- true` from a template.
const CALLS: [(&str, usize); 15] = [
    ("Images1.Claim", 1),
    ("Images1.Open", 1),
    ("Images1.Pull", 1),
    ("Images1.PullKernel", 1),
    ("Images1.Release", 1),
    ("Network1.OpenTap", 1),
    ("Network1.Release", 1),
    ("Network1.Reserve", 1),
    ("Sessions1.Exec", 1),
    ("Storage1.Copy", 1),
    ("Storage1.Delete", 1),
    ("Storage1.Open", 1),
    ("Vms1.Create", 1),
    ("Vms1.Vm.Delete", 1),
    ("Vms1.Vm.OpenChannel", 1),
];
/// Programs that are started for it. The helper enters the network's namespace for a rule, for the device, and for its removal.
const PROGRAMS: [(&str, usize); 4] = [("banger-keeper", 1), ("banger-netns", 3), ("nft", 1), ("qemu-system-x86_64", 1)];
/// Waits for the disk, by file. Of an ephemeral machine nothing else need outlive a crash of the host.
const SYNCS: [(&str, usize); 3] = [("images.redb", 2), ("network.redb", 4), ("vms.redb", 5)];

#[test]
fn a_start_from_a_template_is_made_of_no_more_than_this() {
    let banger = Banger::new(Who::Me).linger(600).env("BANGER_TEMPLATES", "on");
    let run = ["vm", "run", "--rm", "--image", "debian-tiny", "--", "true"];
    banger.ok(run);
    eventually("a template is made", || banger.ok(["template", "list", "--json"]).contains("\"name\""));
    // The service reads it whole at its first use.
    banger.ok(run);
    banger.has_nothing_left();
    let services = banger.services().unwrap();
    let (seen, told) = (banger.home().join("strace"), banger.home().join("trace.json"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-z", "-e", "trace=execve,fsync,fdatasync", "-o"]).arg(&seen);
    strace.args(["-p", &services.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut strace = Running::of(strace);
    let traced = || !fs::read_to_string(format!("/proc/{services}/status")).unwrap().contains("TracerPid:\t0\n");
    eventually("strace has attached itself", || strace.has_ended() || traced());
    if strace.has_ended() {
        return println!("skipped: processes cannot be traced here: {}", strace.end().stderr);
    }
    banger.ok([&["trace", "--json", "--output", told.to_str().unwrap(), "--"][..], &run].concat());
    banger.has_nothing_left();
    strace.signal(Signal::SIGINT);
    strace.end();

    assert_eq!(calls(&told), budget(&CALLS));
    let seen = fs::read_to_string(seen).unwrap();
    assert_eq!(programs(&seen), budget(&PROGRAMS));
    assert_eq!(syncs(&seen), budget(&SYNCS));
}

fn budget(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn calls(told: &Path) -> BTreeMap<String, usize> {
    let told: Value = serde_json::from_slice(&fs::read(told).unwrap()).unwrap();
    let names = told["spans"].as_array().unwrap().iter().map(|span| span["name"].as_str().unwrap());
    let calls = names.filter(|name| name.split_once('.').is_some_and(|(service, _)| service.ends_with('1')));
    counted(calls)
}

/// Programs that were started.
fn programs(seen: &str) -> BTreeMap<String, usize> {
    let started = seen.lines().filter(|line| line.contains(" execve(\""));
    counted(started.filter_map(|line| line.split('"').nth(1)?.rsplit('/').next()))
}

/// The files that were written for good.
fn syncs(seen: &str) -> BTreeMap<String, usize> {
    let synced = seen.lines().filter(|line| line.contains("sync("));
    counted(synced.filter_map(|line| line.split(['<', '>']).nth(1)?.rsplit('/').next()))
}

fn counted<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name.to_owned()).or_default() += 1;
        counts
    })
}
