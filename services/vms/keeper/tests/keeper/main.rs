//! The keeper as its supervisor sees it: a process and a socket. The VMM is `examples/fake_vmm.rs`, a QEMU; what holds
//! for every VMM holds in `tests/firecracker` too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "whatever fails here fails a test")]

use banger_schemas::keeper::Backend;

mod channel;
mod console;
mod control;
mod host;
mod life;
mod qemu;

const BACKEND: Backend = Backend::QemuTcg;
const STAND_IN: &str = "fake_vmm";
/// What the VMM inherits: the standard three; kernel, initramfs and three disks; console, agent and control.
const INHERITED: usize = 3 + 5 + 3;
