//! The words of the mesh: ids, names and sizes as types, the six interfaces' proxies, error names,
//! action ids, and the two wire protocols (guest and keeper).
//!
//! Knows no runtime, no file and no process. Features: `bus` adds what speaks D-Bus; `io` adds how framed
//! messages travel over streams and sockets; `settings` what the file of settings may say.
#![deny(unsafe_code)]

pub mod codec;
pub mod guest;
pub mod id;
pub mod keeper;
pub mod name;
pub mod size;

#[cfg(feature = "io")]
pub mod io;
#[cfg(feature = "settings")]
pub mod settings;

#[cfg(feature = "bus")]
pub mod action;
#[cfg(feature = "bus")]
pub mod dns;
#[cfg(feature = "bus")]
pub mod error;
#[cfg(feature = "bus")]
pub mod images;
#[cfg(feature = "bus")]
pub mod job;
#[cfg(feature = "bus")]
pub mod network;
#[cfg(feature = "bus")]
pub mod observe;
#[cfg(feature = "bus")]
pub mod options;
#[cfg(feature = "bus")]
pub mod sessions;
#[cfg(feature = "bus")]
pub mod storage;
#[cfg(feature = "bus")]
pub mod vms;

pub use id::VmId;
pub use name::{ImageName, VmName};
