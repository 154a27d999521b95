//! The numbers that banger is held to, as ratios of one run: `make bench`.
//!
//! Every comparison alternates between banger and what it is compared with, and takes medians. `BANGER_BENCH_ROUNDS`
//! says how many boots (the rest follows from it).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench ends at what it does not expect")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]

mod boot;
mod bus;
mod cli;
mod client;
mod exec;
mod host;
mod idle;
mod keeper;
mod restore;
mod stats;
mod steps;
mod stream;
mod table;
mod template;

use std::time::Instant;

use banger_integration::{Banger, Who};

use table::Table;

/// Boots of each kind, where nothing is said.
const ROUNDS: usize = 9;

/// Measures something in this many rounds, and puts it into the table.
type Section = fn(&Banger, usize, &mut Table);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, bus::ECHO, address] => return block_on(bus::serve_echo(address)),
        [_, host::ON_THE_HOST, words @ ..] => return host::client(words),
        _ => {}
    }
    let rounds = std::env::var("BANGER_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    // Only some sections, by a part of their names: for whoever works on one of them.
    let wanted = std::env::var("BANGER_BENCH_ONLY").unwrap_or_default();
    let banger = Banger::new(Who::Me).linger(600);
    let mut table = Table::default();
    let begun = Instant::now();
    let sections: [(&str, Section); 9] = [
        ("cli", cli::measure),
        ("idle", idle::measure),
        ("bus", bus::measure),
        ("boot", boot::measure),
        ("steps", steps::measure),
        ("template", template::measure),
        ("exec", exec::measure),
        ("stream", stream::measure),
        ("host", host::measure),
    ];
    for (name, measure) in sections {
        if name.contains(&wanted) {
            eprintln!("[{:>5.1} s] {name}", begun.elapsed().as_secs_f64());
            measure(&banger, rounds, &mut table);
        }
    }
    drop(banger);
    table.note(load());
    println!("\n{}", table.render());
}

/// How busy the machine was: a neighbour makes everything slower, and ratios less sure.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let average = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, load average at the end of the run {average}.")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}
