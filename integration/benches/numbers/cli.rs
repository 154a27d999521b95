//! What the program costs before it does anything.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger_integration::Banger;

use crate::stats::interleaved;
use crate::table::{Goal, Table};

const RUNS: usize = 50;

pub(crate) fn measure(banger: &Banger, _rounds: usize, table: &mut Table) {
    table.section("command line");
    for flag in ["--version", "--help"] {
        let (ours, theirs) = interleaved(RUNS, || wall(banger.command([flag])), || wall(Command::new("/bin/true")));
        // The ratio says little between a shell tool and a program with a parser; the goal is a class of time.
        table.compare(&format!("`banger {flag}`"), ours.median(), "`/bin/true`", theirs.median(), None);
        table.value(
            &format!("`banger {flag}`, as a time"),
            ours.median().as_secs_f64() * 1000.0,
            "ms",
            Some(Goal::AtMost(5.0)),
        );
    }
}

/// From the start of a process to its end. It must succeed.
pub(crate) fn wall(mut command: Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().unwrap();
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}
