//! What lies in a Debian kernel package: one kernel, and modules of which few are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};

use super::error::{At, BuildError, Result};
use super::modules::{ModuleInfo, module_name};
use super::progress::{Cancel, Progress, Unit};

const MAX_BZIMAGE: u64 = 128 << 20;
const MAX_MODULE: u64 = 64 << 20;
const MAX_MODULES: u64 = 1 << 30;
const MAX_LIST: u64 = 1 << 20;

/// What is needed of a kernel package.
#[derive(Debug, Default)]
pub(super) struct Package {
    /// Its release, and the bzImage.
    pub(super) kernel: Option<(String, Vec<u8>)>,
    pub(super) modules: BTreeMap<String, Spooled>,
    pub(super) builtin: BTreeSet<String>,
}

/// A module's place in the spool: which ones are needed is known only when all have been seen.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) needs: Vec<String>,
    pub(super) offset: u64,
    pub(super) length: usize,
}

impl Package {
    /// Reads an unpacked package as a stream; every module goes to `spool`.
    pub(super) fn read(
        tar: &mut impl Read,
        spool: &mut File,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Self> {
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

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;
    use crate::build::Silent;
    use crate::build::elf::tests::small_module;

    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn unpack(tar: &[u8]) -> Result<(Package, Vec<u8>)> {
        let mut spool = tempfile::tempfile().unwrap();
        let package = Package::read(&mut &*tar, &mut spool, &Silent, &Cancel::default())?;
        let mut bytes = Vec::new();
        spool.rewind().unwrap();
        spool.read_to_end(&mut bytes).unwrap();
        Ok((package, bytes))
    }

    #[test]
    fn kernel_modules_and_what_is_built_in_are_found() {
        let (a, b) = (small_module("b"), small_module(""));
        let tar = package(&[
            ("boot/vmlinuz-6.1", b"image"),
            ("lib/modules/6.1/kernel/a.ko", &a),
            ("lib/modules/6.1/kernel/b.ko", &b),
            ("lib/modules/6.1/modules.builtin", b"kernel/fs/ext4/ext4.ko\nkernel/lib/crc-x.ko\n"),
            ("usr/share/doc/b.ko", b"not one"),
        ]);
        let (package, spool) = unpack(&tar).unwrap();
        assert_eq!(package.kernel, Some(("6.1".into(), b"image".to_vec())));
        assert_eq!(package.builtin, BTreeSet::from(["ext4".into(), "crc_x".into()]));
        assert_eq!(package.modules["a"].needs, ["b"]);
        let place = &package.modules["b"];
        assert!(spool[place.offset as usize..][..place.length] == b);
    }

    #[test]
    fn packages_of_another_kind_are_refused_by_what_they_are() {
        let two = package(&[("boot/vmlinuz-1", b""), ("boot/vmlinuz-2", b"")]);
        assert!(matches!(unpack(&two), Err(BuildError::Unsupported { .. })));
        let packed = package(&[("lib/modules/1/a.ko.xz", b"")]);
        assert!(matches!(unpack(&packed), Err(BuildError::Unsupported { .. })));
        let damaged = package(&[("lib/modules/1/a.ko", b"x")]);
        assert!(matches!(unpack(&damaged), Err(BuildError::Corrupt { .. })));
    }

    #[test]
    fn a_package_that_is_cut_off_is_an_error() {
        let whole = package(&[("boot/vmlinuz-1", &[7; 4000])]);
        assert!(unpack(&whole[..2000]).is_err());
    }
}
