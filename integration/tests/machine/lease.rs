//! A sandbox is leased to its client: whatever ends the client ends the machine, and nothing else does.

use std::time::{Duration, Instant};

use banger_integration::{Banger, Running, Who, eventually};
use nix::sys::signal::Signal;

const RUN: [&str; 5] = ["vm", "run", "--rm", "--image", "debian-tiny"];

/// A sandbox whose command has begun.
fn sandbox(banger: &Banger) -> Running {
    let client = banger.start(RUN.into_iter().chain(["--", "sh", "-c", "echo begun; exec sleep 1000"]));
    client.says("begun\n");
    client
}

fn a_killed_client_takes_its_machine_along(who: Who) {
    let banger = Banger::new(who);
    let client = sandbox(&banger);
    assert_eq!(banger.on_the_host().len(), 2, "a keeper and its VMM");
    client.signal(Signal::SIGKILL);
    let killed = Instant::now();
    eventually("keeper and VMM are gone", || banger.on_the_host().is_empty());
    let ended = killed.elapsed();
    eventually("the machine is deleted", || banger.list().is_empty());
    let deleted = killed.elapsed();
    println!("after kill -9 of the client the VMM was gone in {ended:?}, the machine in {deleted:?}");
    assert!(deleted < Duration::from_secs(3), "{deleted:?}");
    banger.has_nothing_left();
}

#[test]
fn a_killed_client_takes_its_machine_along_in_a_moment() {
    Who::all().into_iter().for_each(a_killed_client_takes_its_machine_along);
}

#[test]
fn a_client_and_all_services_killed_at_once_leave_nothing() {
    let banger = Banger::new(Who::Me);
    let client = sandbox(&banger);
    let services = banger.services().unwrap();
    client.signal(Signal::SIGKILL);
    nix::sys::signal::kill(services, Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    eventually("its keeper ends the machine, with nobody to tell it", || banger.on_the_host().is_empty());
    println!("after kill -9 of client and services the VMM was gone in {:?}", killed.elapsed());
    eventually("the services are dead", || banger.services().is_none());
    let found = banger.list();
    assert!(found.iter().all(|vm| vm["state"] != "running" && vm["state"] != "failed"), "{found:?}");
    banger.has_nothing_left();
}

/// Ends a client at a moment of its life: what it says then, and how long after.
fn ended_at(banger: &Banger, signal: Signal, said: &str, later: Duration) {
    let client = banger.start(RUN.into_iter().chain(["--", "sh", "-c", "echo begun; exec sleep 1000"]));
    client.says(said);
    #[allow(clippy::disallowed_methods, reason = "the moment is what is tested")]
    std::thread::sleep(later);
    client.signal(signal);
    let output = client.end();
    let moment = format!("{signal} {later:?} after {said:?}: {}", output.stderr);
    assert_eq!(output.code, 128 + signal as i32, "{moment}");
    println!("{moment}");
    banger.has_nothing_left();
}

/// The stages of a sandbox as its client tells them.
const STAGES: [(&str, u64); 7] = [
    ("", 0),
    ("", 8),
    ("spec:", 0),
    ("starting the VMM", 0),
    ("waiting for the kernel", 300),
    ("takes its identity", 0),
    ("begun", 0),
];

fn at_every_stage(who: Who, signal: Signal) {
    let banger = Banger::new(who);
    for (said, later) in STAGES {
        ended_at(&banger, signal, said, Duration::from_millis(later));
    }
}

#[test]
fn ctrl_c_at_every_stage_leaves_nothing() {
    at_every_stage(Who::Me, Signal::SIGINT);
}

#[test]
fn sigterm_at_every_stage_leaves_nothing() {
    at_every_stage(Who::Me, Signal::SIGTERM);
}

#[test]
fn ctrl_c_of_an_ordinary_user_leaves_nothing() {
    match Who::all().contains(&Who::User) {
        true => at_every_stage(Who::User, Signal::SIGINT),
        false => println!("skipped: only root can become another user"),
    }
}

#[test]
fn a_machine_that_is_not_leased_survives_its_client() {
    let banger = Banger::new(Who::Me);
    let making = banger.start(["vm", "create", "--image", "debian-tiny", "--name", "half"]);
    making.says("spec:").signal(Signal::SIGKILL);
    assert_eq!(making.end().code, 137);
    eventually("what its client began is finished", || banger.show("half")["state"] == "running");
    let script = "echo $$ > /tmp/pid; echo begun; exec sleep 1000";
    let client = banger.start(["vm", "exec", "half", "--", "sh", "-c", script]);
    client.says("begun").signal(Signal::SIGKILL);
    assert_eq!(client.end().code, 137);
    eventually("the command hears of its client's end", || {
        banger.sh("half", "kill -0 $(cat /tmp/pid) 2>&- && echo lives || echo gone") == "gone\n"
    });
    assert_eq!(banger.show("half")["state"], "running");
}
