//! Starts from a template against boots, in a banger of its own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use banger_integration::{Banger, Who, eventually};
use banger_schemas::options::Dict;
use banger_schemas::vms;

use crate::boot::{self, IMAGE};
use crate::cli::wall;
use crate::client;
use crate::idle::{field, kib};
use crate::restore::Template;
use crate::stats::{Samples, interleaved};
use crate::table::{Goal, Table};

/// Machines that are started at once, or idle beside each other.
const AT_ONCE: usize = 8;
const IDLE: usize = 5;

pub(crate) fn measure(_: &Banger, rounds: usize, table: &mut Table) {
    let banger = Banger::new(Who::Me).linger(600).env("BANGER_TEMPLATES", "on");
    let run = |more: &[&str]| {
        let words = [&["vm", "run", "--rm", "--image", IMAGE], more, &["--", "true"]].concat();
        wall(banger.command(words))
    };
    table.section("from a template");
    let made = make(&banger, &[], || run(&[]));
    table.time("a template is made", made, "from the end of the first `vm run`, beside nothing else");
    let (warm, cold) = interleaved(rounds, || run(&[]), || run(&["--cold"]));
    table.compare("`vm run --rm -- true`", warm.median(), "the same, cold", cold.median(), Some(Goal::AtMost(0.15)));
    let fastest = warm.quantile(0.0).as_secs_f64() * 1000.0;
    table.value("the fastest, as a time", fastest, "ms", Some(Goal::AtMost(310.0)));
    let template = Template::of(&banger);
    let (ours, alone) = interleaved(rounds, || run(&[]), || crate::block_on(template.run(&banger)));
    let (ours, alone) = (ours.median(), alone.median());
    table.compare("the same", ours, "its keeper alone: restore, identity, `true`", alone, None);
    let added = ours.saturating_sub(alone).as_secs_f64() * 1000.0;
    table.value("what the mesh adds to that", added, "ms", Some(Goal::AtMost(60.0)));
    let (ready, bare) =
        interleaved(rounds, || crate::block_on(start(&banger)), || crate::block_on(boot::bare(&banger)));
    let beyond = made.saturating_sub(bare.median()).as_secs_f64() * 1000.0;
    table.value("making a template, beyond a VMM to hello", beyond, "ms", Some(Goal::AtMost(1000.0)));
    table.compare("Start to ready", ready.median(), "VMM to hello, cold", bare.median(), Some(Goal::AtMost(0.08)));
    crate::steps::from_a_template(&banger, rounds, table);
    table.section("many from a template");
    let mut bursts = Samples::default();
    for _ in 0..rounds.div_ceil(3) {
        bursts.add(at_once(&banger));
    }
    table.compare(
        &format!("{AT_ONCE} at once, all ended"),
        bursts.median(),
        "one",
        warm.median(),
        Some(Goal::AtMost(4.0)),
    );
    idle(&banger, table);
}

/// From the end of a first run to its template.
fn make(banger: &Banger, of: &[&str], run: impl FnOnce() -> Duration) -> Duration {
    let count = || banger.ok(["template", "list"]).lines().count();
    let before = count();
    run();
    let begun = Instant::now();
    eventually(&format!("a template {of:?}"), || count() > before);
    begun.elapsed()
}

/// A machine that was made: from the call to its identity.
async fn start(banger: &Banger) -> Duration {
    let bus = client::connect(banger).await;
    let (vm, _) = client::create(&bus, IMAGE, true).await;
    let begun = Instant::now();
    client::done(&bus, vms::NAME, vm.start(Dict::new()).await.unwrap()).await;
    let took = begun.elapsed();
    assert_eq!(vm.started().await.unwrap(), "template");
    client::done(&bus, vms::NAME, vm.delete(Dict::new()).await.unwrap()).await;
    took
}

fn at_once(banger: &Banger) -> Duration {
    let begun = Instant::now();
    let children: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let mut command = banger.command(["vm", "run", "--rm", "--image", IMAGE, "--", "true"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    begun.elapsed()
}

/// What idle machines of half a gigabyte cost each, pages that they share counted in parts.
fn idle(banger: &Banger, table: &mut Table) {
    let memory = ["vm", "run", "--image", IMAGE, "--memory", "512M"];
    make(banger, &memory, || wall(banger.command([&memory[..], &["--rm", "--", "true"]].concat())));
    let names: Vec<String> = (0..IDLE).map(|n| format!("idle-{n}")).collect();
    for name in &names {
        wall(banger.command([&memory[..], &["-d", "--name", name]].concat()));
    }
    let pss: Vec<f64> = vmms(banger).into_iter().map(|pid| kib(pid, "Pss") / 1024.0).collect();
    assert_eq!(pss.len(), IDLE);
    let most = pss.iter().fold(0.0, |most: f64, one| most.max(*one));
    table.value(&format!("{IDLE} idle machines of 512 MiB: PSS of the largest"), most, "MiB", Some(Goal::AtMost(60.0)));
    banger.ok([&["vm", "delete"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
}

/// Children of the keepers that log into this banger's state.
fn vmms(banger: &Banger) -> Vec<i32> {
    let status = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = |pid: i32| i32::try_from(field(&status(pid), "PPid")).unwrap();
    let keepers = crate::idle::keepers_of(banger);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| keepers.contains(&parent(*pid))).collect()
}
