//! The keeper of one VM: the process that owns its VMM, its console and its channel to the guest.
//!
//! It is given everything as open descriptors, knows no bus, no policy and no record, and has no right that its VMM
//! has not. Services come and go around it; keeper and VMM live and die together.
#![deny(unsafe_code)]

pub mod backend;
mod channel;
mod connection;
mod console;
mod fds;
mod life;
mod origin;
mod pump;
pub mod server;
mod tap;
pub mod tsc;
mod vm;

pub use fds::inherited_listener;
