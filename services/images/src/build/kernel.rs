//! A kernel for VMs out of a Debian package: the plain `vmlinux`, and the modules that a guest needs to find its
//! disks, in one archive for the initramfs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, FileRecord};
use super::error::{At, BuildError, Result};
use super::mmdebstrap::{self, Bootstrap};
use super::modules::{ModuleInfo, load_order, module_name};
use super::process;
use super::progress::{Cancel, Progress, Unit};
use super::recipe::{KernelRecipe, Settings};
use super::scratch::{self, Scratch};
use super::{bzimage, elf, initramfs};

/// The kernel's file in its folder.
pub const VMLINUX: &str = "vmlinux";
/// The archive of its modules.
pub const MODULES: &str = "modules.cpio";

const MAX_BZIMAGE: u64 = 128 << 20;
const MAX_MODULE: u64 = 64 << 20;
const MAX_MODULES: u64 = 1 << 30;
const MAX_LIST: u64 = 1 << 20;

/// What was built, and how to recognise it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelManifest {
    pub recipe: String,
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
    scratch::require_room(&[(scratch.path(), recipe.room)])?;
    let command = Bootstrap::new("extract", "tar", &[recipe.package], recipe.epoch, scratch.path()).into_command(
        recipe.suite,
        Path::new("-"),
        &settings.mirrors,
    );
    let mut spool = tempfile::tempfile_in(out).at(out)?;
    let package = process::run_reading(command, cancel, &mut mmdebstrap::stages(progress), |output| {
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

/// What is needed of a kernel package.
#[derive(Default)]
struct Package {
    /// Its release, and the bzImage.
    kernel: Option<(String, Vec<u8>)>,
    modules: BTreeMap<String, Spooled>,
    builtin: BTreeSet<String>,
}

/// A module's place in the spool: which ones are needed is known only when all have been seen.
struct Spooled {
    needs: Vec<String>,
    offset: u64,
    length: usize,
}

impl Package {
    fn read(tar: &mut impl Read, spool: &mut File, progress: &dyn Progress, cancel: &Cancel) -> Result<Self> {
        let mut package = Package::default();
        let mut end = 0;
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().when("the kernel package")? {
            cancel.check()?;
            let mut entry = entry.when("the kernel package")?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./");
            progress.amount(entry.raw_file_position(), None, Unit::Bytes);
            if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
                if package.kernel.is_some() {
                    return Err(BuildError::unsupported("the kernel package", "it has more than one kernel"));
                }
                package.kernel = Some((release.to_owned(), read(&mut entry, path, MAX_BZIMAGE)?));
            } else if path.starts_with("lib/modules/") && path.ends_with("/modules.builtin") {
                let list = read(&mut entry, path, MAX_LIST)?;
                package.builtin.extend(String::from_utf8_lossy(&list).lines().map(module_name));
            } else if path.starts_with("lib/modules/") && path.ends_with(".ko") {
                let bytes = read(&mut entry, path, MAX_MODULE)?;
                let info = ModuleInfo::read(path, &bytes)?;
                spool.write_all(&bytes).when("the modules")?;
                let found = Spooled { needs: info.needs, offset: end, length: bytes.len() };
                package.modules.insert(info.name, found);
                end += bytes.len() as u64;
                if end > MAX_MODULES {
                    return Err(BuildError::unsupported("the kernel package", "its modules take over 1 GiB"));
                }
            } else if path.ends_with(".ko.xz") || path.ends_with(".ko.zst") {
                return Err(BuildError::unsupported("the kernel package", "its modules are compressed"));
            }
        }
        Ok(package)
    }
}

fn read(entry: &mut impl Read, path: &str, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(most + 1).read_to_end(&mut bytes).when(path)?;
    if bytes.len() as u64 > most {
        return Err(BuildError::unsupported(path, format!("it is larger than {} MiB", most >> 20)));
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).at(path)
}

fn no_kernel(recipe: &KernelRecipe) -> BuildError {
    BuildError::corrupt(format!("the package {}", recipe.package), "there is no kernel in it")
}
