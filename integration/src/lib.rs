//! The harness: a banger of one's own, as root or as an ordinary user, that cleans up after itself and fails the
//! test that leaves something behind.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at what it does not expect"
)]

mod banger;
mod catalog;
pub mod host;
mod leftovers;
mod mesh;
mod namespace;
mod running;
mod sample;
mod who;

pub use banger::{Banger, Output, dist, eventually, within};
pub use mesh::{Mesh, SERVICES};
pub use running::Running;
pub use sample::sample;
pub use who::Who;
