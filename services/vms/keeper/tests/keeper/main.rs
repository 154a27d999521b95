//! The keeper as its supervisor sees it: a process and a socket. The VMM is `examples/fake_vmm.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "whatever fails here fails a test")]

mod channel;
mod console;
mod control;
mod host;
mod life;
