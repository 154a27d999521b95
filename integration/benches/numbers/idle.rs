//! What the services cost when nobody asks anything of them.

use std::collections::HashMap;
use std::time::Duration;

use banger_integration::Banger;

use crate::table::{Goal, Table};

/// Worker threads that have nothing to do end after ten seconds, which is a wake-up of its own.
const SETTLE: Duration = Duration::from_secs(12);
const QUIET: Duration = Duration::from_secs(10);

pub(crate) fn measure(banger: &Banger, _rounds: usize, table: &mut Table) {
    banger.ok(["vm", "list"]);
    let services = banger.services().expect("the services run").as_raw();
    pause(SETTLE);
    let before = wakeups(services);
    pause(QUIET);
    let after = wakeups(services);
    let woken: u64 = after.iter().map(|(task, count)| count - before.get(task).copied().unwrap_or(0)).sum();
    table.section("at rest");
    table.value(
        "embedded process, no machine: resident",
        kib(services, "Rss") / 1024.0,
        "MiB",
        Some(Goal::AtMost(40.0)),
    );
    table.value("the same, its share of shared pages (PSS)", kib(services, "Pss") / 1024.0, "MiB", None);
    table.value("the same, not backed by files", kib(services, "Anonymous") / 1024.0, "MiB", None);
    table.value("voluntary context switches in 10 s", woken as f64, "", Some(Goal::AtMost(0.0)));

    banger.boot("rest");
    let keeper = keeper_of(banger);
    table.value("with one machine: its keeper, resident", kib(keeper, "Rss") / 1024.0, "MiB", None);
    table.value("the same, PSS", kib(keeper, "Pss") / 1024.0, "MiB", None);
    table.value("with one machine: the embedded process, resident", kib(services, "Rss") / 1024.0, "MiB", None);
    banger.ok(["vm", "delete", "rest"]);
}

pub(crate) fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "a bench's own thread")]
    std::thread::sleep(time);
}

/// Voluntary context switches of every thread: each is a thread that waited and was woken.
fn wakeups(pid: i32) -> HashMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let count = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        field(&status, "voluntary_ctxt_switches")
    };
    tasks.map(|task| (task.file_name().to_string_lossy().into_owned(), count(task.path()))).collect()
}

pub(crate) fn kib(pid: i32, name: &str) -> f64 {
    field(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap(), name) as f64
}

pub(crate) fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The keeper of the only machine.
fn keeper_of(banger: &Banger) -> i32 {
    let keepers = keepers_of(banger);
    assert_eq!(keepers.len(), 1, "a machine has a keeper");
    keepers[0]
}

/// The keepers that log into this banger's state.
pub(crate) fn keepers_of(banger: &Banger) -> Vec<i32> {
    let state = banger.state();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let log = std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
        exe.ends_with("banger-keeper") && log.starts_with(&state)
    });
    ours.collect()
}
