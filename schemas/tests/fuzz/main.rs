//! Bytes and dictionaries from strangers: nothing panics, nothing allocates without bound, and what is understood
//! says the same again. Each target runs for a second, or for `BOLERO_RANDOM_TEST_TIME_MS` (`make fuzz`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a fuzz target ends at what must not be")]

mod frames;
mod hello;
mod memory;
mod messages;
mod samples;
mod wild;

#[cfg(feature = "bus")]
mod dictionaries;
mod words;
