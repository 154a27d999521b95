//! A part of a long matrix, another one each day: over some weeks all of it runs, and `make test-full` runs it at once.

use std::time::{SystemTime, UNIX_EPOCH};

const ALL: &str = "BANGER_TEST_FULL";
const SEED: &str = "BANGER_TEST_SEED";

/// About so many of all, spread evenly; all of them where they are asked for.
pub fn sample<T>(what: &str, of: u64, all: Vec<T>) -> Vec<T> {
    if std::env::var_os(ALL).is_some() {
        return all;
    }
    let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let seed = std::env::var(SEED).map_or(day, |seed| seed.parse().unwrap());
    let count = all.len() as u64;
    println!("{of} of {count} {what}, {SEED}={seed}; {ALL}=1 runs all");
    let every = (count / of).max(1);
    all.into_iter().zip(0u64..).filter(|(_, at)| at % every == seed % every).map(|(one, _)| one).collect()
}
