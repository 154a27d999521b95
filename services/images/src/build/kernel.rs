//! A kernel for VMs out of a Debian package: the plain `vmlinux`, and the modules that a guest needs to find its
//! disks, in one archive for the initramfs.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, FileRecord};
use super::error::{At, BuildError, Result};
use super::mmdebstrap::{self, Bootstrap};
use super::modules::load_order;
use super::package::Package;
use super::process;
use super::progress::{Cancel, Progress};
use super::recipe::{self, KernelRecipe, Settings};
use super::scratch::{self, Scratch};
use super::{bzimage, elf, initramfs};

/// The kernel's file in its folder.
pub const VMLINUX: &str = "vmlinux";
/// The archive of its modules.
pub const MODULES: &str = "modules.cpio";

/// What was built, and how to recognise it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    pub recipe: String,
    /// Of the recipe as it was then; none of those who wrote none down.
    #[serde(default)]
    pub recipe_digest: Option<Digest>,
    /// As `uname -r` says in the guest.
    pub release: String,
    pub vmlinux: FileRecord,
    pub modules: FileRecord,
    /// In the order in which they are to be loaded.
    pub module_names: Vec<String>,
}

impl KernelManifest {
    /// The name of this kernel: the same for the same bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(format!("kernel 1\n{}\n{}\n", self.vmlinux.digest, self.modules.digest).as_bytes())
    }
}

/// Builds `recipe` into the folder `out`, which exists and is empty. On failure it may hold parts of files.
pub fn build_kernel(
    recipe: &KernelRecipe,
    settings: &Settings,
    out: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<KernelManifest> {
    mmdebstrap::require()?;
    let scratch = Scratch::for_tree(out)?;
    scratch::require_room(&[(scratch.parent(), recipe.room)])?;
    let command = Bootstrap::new("extract", "tar", &[recipe.package], recipe.epoch, scratch.path()).into_command(
        recipe.suite,
        Path::new("-"),
        &settings.mirrors,
    );
    let mut spool = tempfile::tempfile_in(out).at(out)?;
    let package = process::run_reading("mmdebstrap", command, cancel, &mut mmdebstrap::stages(progress), |output| {
        Package::read(output, &mut spool, progress, cancel)
    })?;
    drop(scratch);

    progress.stage("unpacking the kernel");
    let (release, image) = package.kernel.ok_or_else(|| no_kernel(recipe))?;
    let vmlinux = out.join(VMLINUX);
    write(&vmlinux, &bzimage::vmlinux(&image)?)?;
    let needs = package.modules.iter().map(|(name, found)| (name.clone(), found.needs.clone())).collect();
    let module_names = load_order(recipe.modules, &needs, &package.builtin)?;
    let mut chosen = Vec::new();
    for name in &module_names {
        let found = package.modules.get(name).ok_or_else(|| BuildError::MissingModule(name.clone()))?;
        let mut bytes = vec![0; found.length];
        spool.seek(SeekFrom::Start(found.offset)).and_then(|_| spool.read_exact(&mut bytes)).at(out)?;
        chosen.push((name.clone(), bytes));
    }
    let modules = out.join(MODULES);
    initramfs::pack_modules(&modules, &chosen)?;
    Ok(KernelManifest {
        recipe: recipe.name.to_owned(),
        recipe_digest: Some(recipe::digest(recipe)),
        release,
        vmlinux: FileRecord::of(&vmlinux, progress, cancel)?,
        modules: FileRecord::of(&modules, progress, cancel)?,
        module_names,
    })
}

/// A quick look at a kernel in its folder before it is used: both files are whole. Reads a few kilobytes of the
/// kernel and the small archive.
pub fn verify_kernel(folder: &Path, manifest: &KernelManifest) -> Result<()> {
    let vmlinux = folder.join(VMLINUX);
    manifest.vmlinux.check_size(&vmlinux)?;
    let mut head = Vec::new();
    File::open(&vmlinux).and_then(|file| file.take(16 << 10).read_to_end(&mut head)).at(&vmlinux)?;
    elf::check_vmlinux(&head, manifest.vmlinux.size)?;
    let modules = folder.join(MODULES);
    manifest.modules.check_size(&modules)?;
    initramfs::check_modules(&modules)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).at(path)
}

fn no_kernel(recipe: &KernelRecipe) -> BuildError {
    BuildError::corrupt(format!("the package {}", recipe.package), "there is no kernel in it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Silent;
    use crate::build::elf::tests::small_elf;

    #[test]
    fn a_kernel_that_lost_bytes_is_seen_before_use() {
        let folder = tempfile::tempdir().unwrap();
        let [vmlinux, modules] = [VMLINUX, MODULES].map(|name| folder.path().join(name));
        write(&vmlinux, &small_elf(40_000)).unwrap();
        initramfs::pack_modules(&modules, &[]).unwrap();
        let record = |path| FileRecord::of(path, &Silent, &Cancel::default()).unwrap();
        let manifest = KernelManifest {
            recipe: "r".into(),
            recipe_digest: None,
            release: "6.1".into(),
            vmlinux: record(&vmlinux),
            modules: record(&modules),
            module_names: Vec::new(),
        };
        verify_kernel(folder.path(), &manifest).unwrap();
        write(&vmlinux, &small_elf(40_000)[..39_999]).unwrap();
        assert!(matches!(verify_kernel(folder.path(), &manifest), Err(BuildError::Corrupt { .. })));
        write(&vmlinux, &vec![0; 40_000]).unwrap();
        assert!(matches!(verify_kernel(folder.path(), &manifest), Err(BuildError::Corrupt { .. })));
    }
}
