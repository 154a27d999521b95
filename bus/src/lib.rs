//! What every service of the mesh shares: connecting and owning a name, who calls and may they, jobs, published
//! objects, the glue between D-Bus faces and actors, records, traces. Knows no capability by name.
#![forbid(unsafe_code)]

mod again;
pub mod authorize;
pub mod caller;
pub mod dirs;
pub mod door;
pub mod effects;
pub mod family;
mod fault;
pub mod jobs;
pub mod metrics;
pub mod netlink;
pub mod objects;
mod observe;
pub mod process;
pub mod records;
pub mod service;
pub mod settings;
pub mod sparse;
pub mod trace;
mod watchdog;
mod watched;

pub use again::{again, again_unless_lost};
pub use authorize::Authorizer;
pub use caller::Caller;
pub use dirs::Dirs;
pub use door::{Door, post};
pub use jobs::{Job, Jobs};
pub use records::Records;
pub use service::{Address, Service};
