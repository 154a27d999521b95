//! Effects on the host: finding a VMM, starting keepers, speaking to them.

pub(crate) mod backend;
pub(crate) mod keeper;
mod process;
pub(crate) mod runner;
