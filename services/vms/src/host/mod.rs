//! Effects on the host: finding a VMM, starting keepers, speaking to them.

pub(crate) mod backend;
pub(crate) mod keeper;
pub(crate) mod runner;
