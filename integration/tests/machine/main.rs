//! Real machines in QEMU, driven by the installed program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod budget;
mod catalog;
mod damage;
mod embedded;
mod exec;
mod first;
mod guest;
mod hostile;
mod lease;
mod names;
mod network;
mod survive;
mod templates;
mod trace;
mod twins;
mod workspace;
