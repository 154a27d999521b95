//! Embedded mode: all six services in one background process of this user's, on a private bus.
//!
//! One process at a time, by a lock. It starts when a command needs it and ends when nothing needs it; VMs outlive
//! it as they outlive any service.

mod handover;
mod host;
mod idle;
mod start;

pub(crate) use host::serve;
pub(crate) use start::connect_or_start;
