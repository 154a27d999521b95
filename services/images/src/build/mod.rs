//! Turns Debian packages into what a VM boots: a kernel, its initramfs and read-only images.
//!
//! Plain blocking functions over folders; knows no bus, no actor and no record. Whoever calls them decides what
//! is built, where it is kept and who may use it.

pub mod bzimage;
pub mod digest;
pub mod elf;
pub mod erofs;
pub mod error;
pub mod image;
pub mod initramfs;
pub mod kernel;
mod messages;
mod mmdebstrap;
pub mod modules;
mod package;
mod process;
pub mod progress;
pub mod recipe;
mod scratch;
pub mod store;

pub use digest::{Digest, FileRecord};
pub use error::{BuildError, Result};
pub use image::{ImageManifest, build_image, verify_image};
pub use initramfs::pack_initramfs;
pub use kernel::{KernelManifest, build_kernel, verify_kernel};
pub use progress::{Cancel, Progress, Silent, Unit};
pub use recipe::{ImageRecipe, KernelRecipe, Settings};
pub(crate) use store::READ_ONLY;
pub use store::{Stage, Store};
