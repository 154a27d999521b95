//! Images1: the catalog of images and kernels, and the claims that VMs have on them.

use zbus::proxy;
use zbus::wire::{OwnedFd, OwnedObjectPath};

use crate::options::Dict;

pub const NAME: &str = "dev.banger.Images1";
pub const PATH: &str = "/dev/banger/Images1";
pub const MANAGER: &str = "dev.banger.Images1.Manager";

/// What is used where nothing is said.
pub const DEFAULT_IMAGE: &str = "debian-bookworm";
pub const DEFAULT_KERNEL: &str = "debian-bookworm-cloud";

/// The catalog.
#[proxy(
    interface = "dev.banger.Images1.Manager",
    default_service = "dev.banger.Images1",
    default_path = "/dev/banger/Images1"
)]
pub trait Manager {
    /// Makes an image available: at once if it is there already, else by its recipe; with `renew b`, also if its recipe
    /// says something else by now. Requests for the same image share one build. Returns a job.
    fn pull(&self, name: &str, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// The same for a kernel.
    fn pull_kernel(&self, name: &str, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// Images: those that are here, and with `available b` those that can be had. Each: `name s`, `available b`,
    /// `digest s`, `size t` (bytes), `created t` (seconds since the epoch), `source s`, `users as` (VM ids), `outdated b`
    /// (its recipe says something else by now).
    fn list(&self, options: Dict) -> zbus::Result<Vec<Dict>>;

    /// Kernels, in the same form, with `version s`.
    fn list_kernels(&self, options: Dict) -> zbus::Result<Vec<Dict>>;

    /// One image.
    fn show(&self, name: &str) -> zbus::Result<Dict>;

    /// Removes an image that no VM stands on.
    fn delete(&self, name: &str, options: Dict) -> zbus::Result<()>;

    /// Removes a kernel that no VM stands on.
    fn delete_kernel(&self, name: &str, options: Dict) -> zbus::Result<()>;

    /// Binds an image and a kernel to a VM, so that they stay as they are as long as it exists. Repeatable. Returns a word
    /// for what the VM boots now: the same word, the same contents.
    fn claim(&self, holder: &str, image: &str, kernel: &str, options: Dict) -> zbus::Result<String>;

    /// What the holder boots: kernel, initramfs and image, open for reading, and the word for their contents.
    fn open(&self, holder: &str, options: Dict) -> zbus::Result<(OwnedFd, OwnedFd, OwnedFd, String)>;

    /// Ends a claim. Repeatable.
    fn release(&self, holder: &str, options: Dict) -> zbus::Result<()>;

    /// Holders of claims.
    fn holders(&self) -> zbus::Result<Vec<String>>;
}
