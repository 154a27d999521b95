//! A real host: Debian with systemd, a system bus and polkit. Only root can boot one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod backends;
mod faults;
mod firewalls;
mod harness;
mod impostor;
mod install;
mod load;
mod machine;
mod names;
mod nat;
mod outside;
mod package;
mod polkit;
mod settings;
mod subjects;
mod survive;
mod templates;
mod vms;
mod walls;
