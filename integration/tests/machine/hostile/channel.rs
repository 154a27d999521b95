//! A real guest whose agent means harm (`guest/examples/hostile.rs`): it costs its own machine and the command that
//! asked for it, in bounded time and memory, and nobody else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use banger_integration::{Banger, Running, Who, within};
use nix::unistd::Pid;

use super::install;

/// What nobody may grow to, at no time, whatever a guest says.
const MOST_MIB: usize = 100;
const LOST: &str = "the connection to the machine was lost before the command ended";
const SOON: Duration = Duration::from_secs(20);

/// Built here and not with what is installed: nobody but this test may have it.
fn hostile_agent() -> PathBuf {
    let target = "x86_64-unknown-linux-gnu";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--profile", "guest", "--target", target, "-p", "banger-guest"]);
    cargo.args(["--example", "hostile"]).current_dir(&root);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    assert!(cargo.status().unwrap().success());
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    folder.join(target).join("guest/examples/hostile")
}

/// A banger with a machine `good`, whose machines from here on have a hostile agent.
fn banger_among_wolves() -> Banger {
    let banger = Banger::new(Who::Me).own_catalog();
    banger.boot("good");
    let lib = install(&banger, &hostile_agent());
    banger.env("BANGER_LIB_DIR", lib).env("BANGER_BOOT_DEADLINE_SECONDS", "15")
}

/// The most memory that a process ever had, in MiB.
fn peak(pid: Pid) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it lives");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

fn nobody_else_suffers(banger: &Banger, how: &str) {
    assert_eq!(banger.sh("good", "echo fine"), "fine\n", "{how}");
    let services = peak(banger.services().unwrap());
    let mut keepers = Vec::new();
    for vm in banger.list().iter().filter(|vm| vm["state"] == "running") {
        keepers.push(peak(banger.keeper(vm["id"].as_str().unwrap())));
    }
    println!("{how}: services {services} MiB, keepers {keepers:?} MiB");
    assert!(keepers.into_iter().chain([services]).all(|mib| mib < MOST_MIB), "{how}");
}

fn is_deleted(banger: &Banger, how: &str) {
    let mut delete = banger.start(["vm", "delete", "bad"]);
    within(SOON, &format!("deleted after {how}"), || delete.has_ended());
    assert_eq!(delete.end().code, 0, "{how}");
    assert_eq!(banger.list().len(), 1, "{how}");
}

/// The machine `bad` is asked for harm.
fn asked(banger: &Banger, how: &str) -> Running {
    banger.start(["vm", "exec", "bad", "--", how])
}

fn ends_badly(mut command: Running, how: &str) -> String {
    within(SOON, &format!("an end of {how}"), || command.has_ended());
    let output = command.end();
    assert_eq!(output.code, 125, "{how}: {}", output.stderr);
    assert!(output.stdout.is_empty() || how == "output", "{how}: {}", output.stdout);
    println!("{how}: {}", output.stderr.trim_end());
    output.stderr
}

#[test]
fn what_breaks_the_channel_ends_the_machine_with_a_reason() {
    let banger = banger_among_wolves();
    banger.boot("bad");
    assert_eq!(asked(&banger, "nothing").end().code, 0, "it can behave");
    for (how, reason) in [
        ("noise", "the agent broke the protocol: "),
        ("long frame", "frame body is too large (4294967295)"),
        ("gone", ""),
    ] {
        let complaint = ends_badly(asked(&banger, how), how);
        assert!(complaint.contains(LOST), "{how}: {complaint}");
        within(SOON, "the machine has ended", || banger.show("bad")["state"] == "failed");
        let shown = banger.show("bad");
        println!("{how}: {}", shown["detail"]);
        assert!(shown["detail"].as_str().unwrap().contains(reason), "{how}: {shown}");
        nobody_else_suffers(&banger, how);
        assert!(banger.fails(["vm", "exec", "bad", "--", "nothing"]).contains("bad"), "{how}");
        banger.ok(["vm", "start", "bad"]);
    }
    is_deleted(&banger, "all that");
}

#[test]
fn what_breaks_a_stream_ends_its_command_and_what_stalls_ends_with_the_machine() {
    let banger = banger_among_wolves();
    banger.boot("bad");
    for (how, reason) in [
        ("long message", "a message of 4294967295 bytes exceeds the limit"),
        ("long string", "malformed message"),
        ("half a message", "the stream ended inside a message"),
    ] {
        let complaint = ends_badly(asked(&banger, how), how);
        assert!(complaint.contains(reason), "{how}: {complaint}");
        assert_eq!(asked(&banger, "nothing").end().code, 0, "{how} costs that command only");
    }
    nobody_else_suffers(&banger, "messages");
    for how in ["half a frame", "output", "pings", "streams"] {
        let mut fed = asked(&banger, how);
        fed.feed(vec![0; 32 << 20]);
        let begun = std::time::Instant::now();
        within(SOON, "a while", || begun.elapsed() > Duration::from_secs(3));
        nobody_else_suffers(&banger, how);
        is_deleted(&banger, how);
        let complaint = ends_badly(fed, how);
        assert!(complaint.contains(LOST), "{how}: {complaint}");
        banger.boot("bad");
    }
    is_deleted(&banger, "all that");
}

#[test]
fn what_lies_from_the_start_never_runs() {
    let banger = banger_among_wolves();
    let create = ["vm", "create", "--image", "debian-tiny", "--name"];
    let complaint = banger.fails(create.iter().chain(&["liar"]));
    assert!(complaint.contains("a message of 4294967295 bytes exceeds the limit"), "{complaint}");
    let begun = std::time::Instant::now();
    let complaint = banger.fails(create.iter().chain(&["bad", "--vcpu", "1"]));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(complaint.contains("the agent has not answered"), "noise is no answer: {complaint}");
    nobody_else_suffers(&banger, "lies");
    banger.ok(["vm", "delete", "liar"]);
    is_deleted(&banger, "lies");
}
