//! A real host: Debian with systemd, a system bus and polkit. Only root can boot one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod faults;
mod backends;
mod firewalls;
mod harness;
mod impostor;
mod install;
mod load;
mod machine;
mod package;
mod names;
mod outside;
mod polkit;
mod subjects;
mod survive;
mod vms;
mod walls;
