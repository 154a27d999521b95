//! Images and kernels for VMs.
#![deny(unsafe_code)]

pub mod build;
