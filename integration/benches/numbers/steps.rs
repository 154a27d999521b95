//! Where the time of a `vm run` goes: a D-Bus client takes the steps one after the other, beside a watcher of the
//! machine's keeper.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use banger_integration::Banger;
use banger_schemas::keeper::Phase;
use banger_schemas::options::Dict;
use banger_schemas::vms;

use crate::boot::IMAGE;
use crate::cli::wall;
use crate::client;
use crate::keeper::Connection;
use crate::stats::Samples;
use crate::table::Table;

/// Each step and what it is.
const STEPS: [(&str, &str); 10] = [
    ("program: start, connect, one call, end", "`vm list` as a process"),
    ("create", "Create to the end of its job: records, claims, disks, lease"),
    ("open", "Start to the keeper's socket: record, image, disks, TAP"),
    ("keeper", "its socket to the VMM's process: keeper's start, clock, fork"),
    ("VMM", "its process to the kernel's first line"),
    ("kernel", "first line to the agent's hello"),
    ("identity", "hello to the end of Start's job"),
    ("`true`", "Exec to Exited"),
    ("delete", "Delete to the end of its job"),
    ("sum", "of all rows above"),
];

pub(crate) fn measure(banger: &Banger, rounds: usize, table: &mut Table) {
    table.section("where it goes (medians, each step by itself)");
    of_each(banger, rounds, table, &STEPS);
}

/// The same of a start from a template.
pub(crate) fn from_a_template(banger: &Banger, rounds: usize, table: &mut Table) {
    table.section("where a start from a template goes (medians, each step by itself)");
    let remarks = STEPS.map(|(step, remark)| match step {
        "keeper" => (step, "its socket to a VMM that has the guest: keeper's start, clock, fork, restore"),
        "VMM" => (step, "the same to the agent's hello"),
        "kernel" => (step, "nothing: its first line is long ago"),
        _ => (step, remark),
    });
    of_each(banger, rounds, table, &remarks);
}

fn of_each(banger: &Banger, rounds: usize, table: &mut Table, remarks: &[(&str, &str)]) {
    let mut samples: [Samples; STEPS.len()] = Default::default();
    crate::block_on(steps(banger));
    for _ in 0..rounds {
        let mut round = vec![wall(banger.command(["vm", "list"]))];
        round.extend(crate::block_on(steps(banger)));
        round.push(round.iter().sum());
        samples.iter_mut().zip(round).for_each(|(samples, took)| samples.add(took));
    }
    for ((name, what), samples) in remarks.iter().zip(&samples) {
        table.time(name, samples.median(), what);
    }
}

async fn steps(banger: &Banger) -> Vec<Duration> {
    let bus = client::connect(banger).await;
    let mut clock = Clock::start();
    let (vm, id) = client::create(&bus, IMAGE, true).await;
    clock.lap();

    let socket = banger.state().join("vms").join(&id).join("keeper.sock");
    let start = async { client::done(&bus, vms::NAME, vm.start(Dict::new()).await.unwrap()).await };
    let (_, phases) = tokio::join!(start, phases(socket));
    let ready = Instant::now();
    phases.into_iter().for_each(|at| clock.lap_at(at));
    clock.lap_at(ready);

    client::run_true(&bus, &id).await;
    clock.lap();
    client::done(&bus, vms::NAME, vm.delete(Dict::new()).await.unwrap()).await;
    clock.lap();
    clock.laps
}

/// When the keeper's socket was there, its VMM ran, the kernel spoke, and the agent said hello.
async fn phases(socket: PathBuf) -> Vec<Instant> {
    while !socket.exists() {
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let mut seen = vec![Instant::now()];
    let keeper = loop {
        // The file is there a moment before somebody listens.
        match Connection::open(&socket).await {
            Some(keeper) => break keeper,
            None => tokio::time::sleep(Duration::from_micros(500)).await,
        }
    };
    keeper.watch().await;
    for phase in [Phase::Booting, Phase::Kernel, Phase::Agent] {
        keeper.until(&phase).await;
        seen.push(Instant::now());
    }
    seen
}

/// Laps of one run.
struct Clock {
    last: Instant,
    laps: Vec<Duration>,
}

impl Clock {
    fn start() -> Self {
        Clock { last: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self) {
        self.lap_at(Instant::now());
    }

    fn lap_at(&mut self, now: Instant) {
        self.laps.push(now - self.last);
        self.last = now;
    }
}
