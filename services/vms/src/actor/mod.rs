//! The actors: one supervisor, and under it one actor a VM.

mod boot;
mod launch;
mod messages;
mod perform;
mod still;
mod supervisor;
mod vm;
mod watch;

pub(crate) use messages::{Adopt, Create, Drive, Find, Order};
pub(crate) use perform::Tools;
pub(crate) use supervisor::Supervisor;
pub(crate) use vm::CREATE;
