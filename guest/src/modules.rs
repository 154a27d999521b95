//! Loads the kernel modules that the initramfs brought, in the order of their names, one after the other.
//!
//! They are loaded on a thread of their own, and who needs one waits for that one: most of the work of a start is
//! loading on one processor and mounting on another.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::log;

/// What only vsock needs, and the number of its device (virtio 1.2, 5): few VMMs give a guest one.
const VSOCK: [&str; 3] = ["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"];
const VSOCK_DEVICE: &str = "0x0013";
const VIRTIO_DEVICES: &str = "/sys/bus/virtio/devices";

/// The modules that are still to be loaded, by their names.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    names: Mutex<BTreeSet<String>>,
    fewer: Condvar,
}

impl Pending {
    /// Waits until a module is loaded or has failed to; not for one that is in the kernel or was not brought.
    pub(crate) fn wait_for(&self, module: &str) {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.fewer.wait_while(names, |names| names.contains(module));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn done(&self, module: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(module);
        self.fewer.notify_all();
    }
}

/// The modules of a folder, in the order to load them in.
pub(crate) struct Modules {
    /// Opened once: their paths are out of reach after the chroot.
    folder: OwnedFd,
    files: Vec<String>,
    pending: Arc<Pending>,
}

impl Modules {
    pub(crate) fn find(folder: &Path) -> std::io::Result<Modules> {
        let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let files = in_order(names);
        let names = Mutex::new(files.iter().map(|file| name(file).to_owned()).collect());
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let folder = open(folder, flags, Mode::empty())?;
        Ok(Modules { folder, files, pending: Arc::new(Pending { names, fewer: Condvar::new() }) })
    }

    pub(crate) fn pending(&self) -> Arc<Pending> {
        self.pending.clone()
    }

    /// Loads them all. One that fails is reported and does not stop the others: which of them this VM needs is
    /// known only later.
    pub(crate) fn load_all(self) {
        for file in &self.files {
            let of_use = !VSOCK.contains(&name(file)) || has_vsock(Path::new(VIRTIO_DEVICES));
            match if of_use { self.load(file) } else { Ok(()) } {
                // The initramfs is memory: what is loaded, or of no use, need not stay a file.
                Ok(()) => drop(unlinkat(&self.folder, file.as_str(), UnlinkatFlags::NoRemoveDir)),
                Err(errno) => log::error(&format!("cannot load {file}: {}", errno.desc())),
            }
            self.pending.done(name(file));
        }
    }

    fn load(&self, file: &str) -> nix::Result<()> {
        let opened = openat(&self.folder, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        match finit_module(opened, c"", ModuleInitFlags::empty()) {
            Err(Errno::EEXIST) => Ok(()),
            result => result,
        }
    }
}

fn has_vsock(devices: &Path) -> bool {
    let Ok(devices) = fs::read_dir(devices) else { return false };
    devices.filter_map(Result::ok).any(|device| {
        fs::read_to_string(device.path().join("device")).is_ok_and(|number| number.trim_end() == VSOCK_DEVICE)
    })
}

/// The modules among `files`, in the order to load them in.
fn in_order(files: impl Iterator<Item = String>) -> Vec<String> {
    let mut modules: Vec<String> = files.filter(|file| file.ends_with(".ko")).collect();
    modules.sort();
    modules
}

/// The name of the module in a file: the number before it is its place.
fn name(file: &str) -> &str {
    let name = file.strip_suffix(".ko").unwrap_or(file);
    name.split_once('-').map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_in_the_order_of_their_numbers_and_nothing_else_loads() {
        let names = ["10-overlay.ko", "02-virtio.ko", "README", "01-virtio_ring.ko", "03-x.ko.xz"];
        let ordered = in_order(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(ordered, ["01-virtio_ring.ko", "02-virtio.ko", "10-overlay.ko"]);
        assert_eq!(ordered.iter().map(|file| name(file)).collect::<Vec<_>>(), ["virtio_ring", "virtio", "overlay"]);
    }

    #[test]
    fn vsock_is_known_by_the_number_of_its_device() {
        let devices = tempfile::tempdir().unwrap();
        assert!(!has_vsock(devices.path()));
        for (name, number, expected) in [("virtio0", "0x0002\n", false), ("virtio1", "0x0013\n", true)] {
            fs::create_dir(devices.path().join(name)).unwrap();
            fs::write(devices.path().join(name).join("device"), number).unwrap();
            assert_eq!(has_vsock(devices.path()), expected);
        }
    }

    #[test]
    fn who_needs_a_module_waits_for_it_and_for_no_other_even_if_it_cannot_be_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["0-first.ko", "1-second.ko"] {
            fs::write(folder.path().join(file), "no module").unwrap();
        }
        let modules = Modules::find(folder.path()).unwrap();
        let pending = modules.pending();
        pending.wait_for("built_in");
        let waiting = std::thread::spawn(move || pending.wait_for("second"));
        assert!(!waiting.is_finished());
        modules.load_all();
        waiting.join().unwrap();
    }
}
