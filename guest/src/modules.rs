//! Loads the kernel modules that the initramfs brought, in the order of their names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::log;

/// Loads every module of `folder`. One that fails is reported and does not stop the others: which of them this
/// VM needs is known only later.
pub(crate) fn load_all(folder: &Path) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return log::error(&format!("no kernel modules: {}: {error}", folder.display())),
    };
    for path in in_order(entries.filter_map(|entry| Some(entry.ok()?.path()))) {
        match load(&path) {
            // The initramfs is memory: what is loaded need not stay a file too.
            Ok(()) => drop(fs::remove_file(&path)),
            Err(error) => log::error(&format!("cannot load {}: {error}", path.display())),
        }
    }
}

/// The modules among `paths`, in the order to load them in.
fn in_order(paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut modules: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "ko")).collect();
    modules.sort();
    modules
}

fn load(path: &Path) -> std::io::Result<()> {
    match finit_module(File::open(path)?, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_in_the_order_of_their_numbers_and_nothing_else_loads() {
        let names = ["10-overlay.ko", "02-virtio.ko", "README", "01-virtio_ring.ko", "03-x.ko.xz"];
        let ordered = in_order(names.iter().map(PathBuf::from));
        assert_eq!(ordered, ["01-virtio_ring.ko", "02-virtio.ko", "10-overlay.ko"].map(PathBuf::from));
    }
}
