//! Real machines in QEMU, driven by the installed program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod exec;
mod first;
mod lease;
mod network;
mod survive;
