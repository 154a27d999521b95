//! Effects on the host: finding a VMM, starting keepers, speaking to them; and whether it has room.

pub(crate) mod backend;
pub(crate) mod keeper;
pub(crate) mod room;
pub(crate) mod runner;
