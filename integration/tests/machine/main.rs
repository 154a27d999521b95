//! Real machines in QEMU, driven by the installed program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod first;
