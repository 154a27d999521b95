//! The keeper with a Firecracker, which is `examples/fake_firecracker.rs`: all that holds for every VMM, and what only
//! Firecracker can do to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "whatever fails here fails a test")]

use banger_schemas::keeper::Backend;

#[path = "../keeper/channel.rs"]
mod channel;
#[path = "../keeper/console.rs"]
mod console;
mod contract;
mod failures;
#[path = "../keeper/host.rs"]
mod host;
#[path = "../keeper/life.rs"]
mod life;
mod published;
mod stage;
mod tap;
mod vsock;

const BACKEND: Backend = Backend::Firecracker;
const STAND_IN: &str = "fake_firecracker";
/// What the VMM inherits: the standard three, of which one is the console; kernel, initramfs and three disks.
const INHERITED: usize = 3 + 5;
