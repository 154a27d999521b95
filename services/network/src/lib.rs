//! The network of this host's VMs.

pub mod host;
pub mod pool;
pub mod render;
