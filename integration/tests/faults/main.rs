//! A service may be killed at any step of a machine's life: whatever it was, the machine is whole or gone, can be
//! deleted, and nothing of it is left. The steps are counted by the services themselves (`bus/src/fault.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::time::Duration;

use banger_integration::{Mesh, SERVICES, eventually, sample, within};
use banger_schemas::{images, network, storage};

/// A machine's life.
const LIFE: [&[&str]; 4] = [
    &["vm", "create", "--image", "debian-tiny", "--name", "box"],
    &["vm", "stop", "box"],
    &["vm", "start", "box"],
    &["vm", "delete", "box"],
];

/// Whom the supervisor asks: one of them that dies once is asked again, and nobody notices.
const PEERS: [&str; 3] = ["network", "storage", "images"];

/// Of all faults, a run takes about this many.
const SAMPLE: u64 = 40;

fn live(mesh: &mut Mesh) -> (Vec<String>, Vec<&'static str>) {
    let (mut said, mut died) = (Vec::new(), Vec::new());
    for arguments in LIFE {
        let (output, dead) = mesh.run(arguments);
        said.push(format!("{arguments:?}: {} {}", output.code, output.stderr));
        died.extend(dead);
    }
    (said, died)
}

/// How many steps the service has taken so far.
fn steps(log: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).max().unwrap_or(0)
}

/// The steps of a service that belong to a machine's life, not to its own start: first and last.
fn count(mesh: &mut Mesh, service: &'static str) -> (u64, u64) {
    let log = mesh.home().join(format!("{service}.steps"));
    mesh.restart(service, &[("BANGER_FAULT_LOG", log.display().to_string())]);
    mesh.all_serve();
    // What it does on its own after the start is over when nothing more comes.
    let mut last = (steps(&log), std::time::Instant::now());
    within(Duration::from_secs(10), "the service is at rest", || {
        if steps(&log) != last.0 {
            last = (steps(&log), std::time::Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(300)
    });
    let (said, _) = live(mesh);
    assert!(said.iter().all(|line| line.contains(": 0 ")), "{said:#?}\n{}", mesh.logs());
    let all = steps(&log);
    mesh.restart(service, &[]);
    mesh.all_serve();
    (last.0 + 1, all)
}

/// Who holds something for a machine.
fn held(mesh: &Mesh) -> Vec<String> {
    mesh.ask(async |bus| {
        let mut held = images::ManagerProxy::new(&bus).await.unwrap().holders().await.unwrap_or(vec!["images?".into()]);
        let disks = storage::ManagerProxy::new(&bus).await.unwrap().usage().await;
        held.extend(disks.map_or(vec!["storage?".into()], |d| d.into_iter().map(|(holder, _, _)| holder).collect()));
        let leases = network::ManagerProxy::new(&bus).await.unwrap().holders().await;
        held.extend(leases.unwrap_or(vec!["network?".into()]));
        held
    })
}

fn is_whole_or_gone(mesh: &mut Mesh, fault: &str, said: &[String]) {
    mesh.mend();
    mesh.all_serve();
    let told = format!("{fault}: {said:#?}");
    // A machine that is on its way somewhere gets there.
    let mut states = String::new();
    within(Duration::from_secs(30), &format!("the machine is at rest; {told}"), || {
        states = mesh.run(&["vm", "list", "-a", "--json"]).0.stdout;
        !["creating", "starting", "stopping", "deleting"].iter().any(|moving| states.contains(moving))
    });
    if states.contains("\"box\"") {
        let (deleted, _) = mesh.run(&["vm", "delete", "box"]);
        assert_eq!(deleted.code, 0, "{told}\n{states}\n{}", deleted.stderr);
    }
    // A service may have steps left when all is answered, and die at one of them now.
    let mut eventually = |what: &str, holds: fn(&Mesh) -> bool| {
        eventually(&format!("{what}; {told}"), || {
            mesh.mend();
            holds(mesh)
        });
    };
    eventually("no machine is on the host", |mesh| mesh.on_the_host().is_empty());
    eventually("nothing is held for a machine", |mesh| held(mesh).is_empty());
    let left = |folder: &str| {
        let entries = std::fs::read_dir(mesh.home().join("state").join(folder)).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| !n.starts_with('.')).count()
    };
    assert_eq!((left("vms"), left("disks")), (0, 0), "{told}");
}

/// One service, killed once.
#[derive(Debug)]
struct Fault {
    service: &'static str,
    at: u64,
    /// The steps that it takes before anybody asks for something.
    rest: u64,
}

#[test]
fn a_service_may_die_at_any_step_of_a_machines_life() {
    if !nix::unistd::geteuid().is_root() {
        panic!("this test needs root: it mounts a stand-in VMM over the real one");
    }
    let mut mesh = Mesh::start();
    // What services ask each other once, when all have just started, would be counted as a step of whoever is first.
    live(&mut mesh);
    let mut faults = Vec::new();
    for service in SERVICES {
        let (first, last) = count(&mut mesh, service);
        println!("{service}: steps {first} to {last}");
        faults.extend((first..=last).map(|at| Fault { service, at, rest: first - 1 }));
    }
    assert!(faults.len() > 50, "the services count their steps: {faults:?}");
    let chosen = sample("faults", SAMPLE, faults);
    let (mut unharmed, mut unnoticed) = (0, 0);
    for Fault { service, at, rest } in &chosen {
        let log = mesh.home().join(format!("{service}.{at}"));
        let variables = [("BANGER_FAULT_AT", at.to_string()), ("BANGER_FAULT_LOG", log.display().to_string())];
        mesh.restart(service, &variables);
        mesh.all_serve();
        eventually("it is at rest", || steps(&log) >= *rest);
        let (said, died) = live(&mut mesh);
        if died.is_empty() {
            println!("{service} was not killed at step {at}: {said:?}");
            unharmed += 1;
        }
        if PEERS.contains(service) && !died.is_empty() {
            let well = said.iter().all(|line| line.contains(": 0 ") && !line.contains("no network"));
            assert!(well, "{service} killed at step {at}: {said:#?}\n{}", mesh.logs());
            unnoticed += 1;
        }
        is_whole_or_gone(&mut mesh, &format!("{service} killed at step {at}"), &said);
        mesh.restart(service, &[]);
        mesh.all_serve();
    }
    println!("{} faults, {unharmed} of them not reached, {unnoticed} of peers and unnoticed", chosen.len());
    assert!(unnoticed > 0, "a sample has some of peers");
    // The order of what goes on at once differs from run to run, by a step or two.
    assert!(unharmed * 5 <= chosen.len(), "{unharmed} of {} were not reached", chosen.len());
}
