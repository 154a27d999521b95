//! Sudden death on purpose, for the tests of recovery: every effect and every piece of work on the disk passes here
//! before and after, so that the places where a service can be killed are counted by the code itself.
//!
//! `BANGER_FAULT_LOG=FILE` writes a line for each place; `BANGER_FAULT_AT=N` ends the process, as `kill -9` does, at the
//! N-th. Without either this costs one look at a variable in the life of a process.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Plan {
    at: Option<u64>,
    log: Option<File>,
    passed: AtomicU64,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let at = std::env::var("BANGER_FAULT_AT").ok().and_then(|n| n.parse().ok());
        let log = std::env::var_os("BANGER_FAULT_LOG");
        let log = log.and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
        (at.is_some() || log.is_some()).then(|| Plan { at, log, passed: AtomicU64::new(0) })
    };
    PLAN.get_or_init(read).as_ref()
}

/// A place where the process may be killed.
pub(crate) fn pass(what: &str, when: &str) {
    let Some(plan) = plan() else { return };
    let number = plan.passed.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(mut log) = plan.log.as_ref() {
        // Only a test reads it, and misses what is not there.
        drop(writeln!(log, "{number} {when} {what}"));
    }
    if plan.at == Some(number) {
        // Not an exit: nothing is flushed, dropped or said.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
