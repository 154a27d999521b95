//! A guest that never answers: the wait has an end, the error says how far it came, and the machine can be looked at.

mod channel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use banger_integration::{Banger, Who};

/// A program without libc that does nothing for ever.
const SLEEPER: &str =
    "void _start(void) { for (;;) __asm__ volatile(\"syscall\" : : \"a\"(34) : \"rcx\", \"r11\", \"memory\"); }";

/// A copy of what is installed, with another agent.
fn install(banger: &Banger, agent: &Path) -> PathBuf {
    let lib = banger.home().join("lib");
    let installed = banger_integration::dist().join("lib/banger");
    assert!(Command::new("cp").arg("-a").arg(installed).arg(&lib).status().unwrap().success());
    std::fs::remove_file(lib.join("banger-guest")).unwrap();
    std::fs::copy(agent, lib.join("banger-guest")).unwrap();
    lib
}

fn silent_agent(banger: &Banger) -> PathBuf {
    let (source, agent) = (banger.home().join("sleeper.c"), banger.home().join("sleeper"));
    std::fs::write(&source, SLEEPER).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-static", "-nostdlib", "-fno-stack-protector", "-o"]).args([&agent, &source]);
    assert!(cc.status().unwrap().success());
    agent
}

#[test]
fn a_guest_that_never_answers_is_given_up_and_kept_to_be_looked_at() {
    let banger = Banger::new(Who::Me).own_catalog();
    let lib = install(&banger, &silent_agent(&banger));
    let banger = banger.env("BANGER_LIB_DIR", lib).env("BANGER_BOOT_DEADLINE_SECONDS", "6");
    let begun = Instant::now();
    let complaint = banger.fails(["vm", "create", "--image", "debian-tiny", "--name", "mute"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(20), "{took:?}");
    assert!(complaint.contains("not up after 6 s: the kernel runs, and the agent has not answered."), "{complaint}");
    assert!(complaint.contains("The end of its console:\n["), "{complaint}");
    assert!(complaint.contains("'banger vm logs' shows all of the console"), "{complaint}");
    assert!(complaint.lines().count() < 25, "a tail, not all of it: {complaint}");

    let shown = banger.show("mute");
    assert_eq!(shown["state"], "failed");
    assert!(shown["detail"].as_str().unwrap().starts_with("not up after 6 s"), "{shown}");
    assert!(banger.on_the_host().is_empty(), "its VMM is ended");
    let console = banger.ok(["vm", "logs", "mute"]);
    assert!(console.contains("Linux version"), "{console}");
    assert!(banger.fails(["vm", "exec", "mute", "--", "true"]).contains("mute"));
    banger.ok(["vm", "delete", "mute"]);
    banger.has_nothing_left();

    let complaint = banger.fails(["vm", "run", "--rm", "--image", "debian-tiny", "--", "true"]);
    assert!(complaint.contains("not up after 6 s"), "{complaint}");
    let kept = banger.list();
    assert_eq!((kept.len(), &kept[0]["state"]), (1, &"failed".into()), "kept for its log, --rm or not");
    assert_eq!(kept[0]["ephemeral"], false);
}
