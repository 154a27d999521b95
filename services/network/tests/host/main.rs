//! The network of a user and that of a host, for real. Where the machine refuses one, each of its tests says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::print_stdout, reason = "pretend guests talk over it, and a skipped test says why")]

mod bridge;
mod contract;
mod network;
mod pretend;
mod rootless;
mod scratch;
