//! The initramfs: the agent as `/init`, and the modules that it loads. Made of two archives, one after the other,
//! as the kernel allows: modules come with the kernel, and a new agent is put before them in milliseconds.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use cpio::newc::{Builder, ModeFileType, trailer};

use super::digest::FileRecord;
use super::elf;
use super::error::{At, BuildError, Result};
use super::progress::{Cancel, Silent};

/// The agent is a few megabytes.
const MAX_AGENT: u64 = 64 << 20;

/// Writes an initramfs with `agent` (a static program) as `/init` and the archive `modules` of a kernel to `out`.
/// The same inputs give the same bytes.
pub fn pack_initramfs(modules: &Path, agent: &Path, out: &Path) -> Result<FileRecord> {
    let mut program = Vec::new();
    File::open(agent).and_then(|file| file.take(MAX_AGENT + 1).read_to_end(&mut program)).at(agent)?;
    if program.len() as u64 > MAX_AGENT {
        return Err(BuildError::unsupported("the guest agent", "it is larger than 64 MiB"));
    }
    elf::check_static("the guest agent", &program)?;
    let mut modules_file = File::open(modules).at(modules)?;
    let file = File::create(out).at(out)?;
    let mut archive = Archive::new(BufWriter::new(&file));
    for folder in ["dev", "proc", "run", "sys", "sysroot"] {
        archive.folder(folder).at(out)?;
    }
    // Before devtmpfs is mounted the agent has no other way to say what went wrong.
    archive.device("dev/console", 5, 1).at(out)?;
    archive.program("init", &program).at(out)?;
    // No trailer here: readers other than the kernel stop at the first.
    let mut rest = archive.writer;
    io::copy(&mut modules_file, &mut rest).at(out)?;
    rest.flush().at(out)?;
    drop(rest);
    file.sync_all().at(out)?;
    FileRecord::of(out, &Silent, &Cancel::default())
}

/// Writes the archive of modules, given in the order in which they are to be loaded.
pub(super) fn pack_modules(out: &Path, modules: &[(String, Vec<u8>)]) -> Result<()> {
    let file = File::create(out).at(out)?;
    let mut archive = Archive::new(BufWriter::new(&file));
    archive.folder("modules").at(out)?;
    for (index, (name, bytes)) in modules.iter().enumerate() {
        archive.file(&format!("modules/{index:03}-{name}.ko"), unsigned(bytes)).at(out)?;
    }
    let mut writer = trailer(archive.writer).at(out)?;
    writer.flush().at(out)?;
    drop(writer);
    file.sync_all().at(out)
}

/// A module without the signature at its end (Documentation/admin-guide/module-signing.rst; `struct
/// module_signature`). An emulated guest checks three milliseconds at each, and learns nothing: whoever could change
/// a module here could change the kernel. It calls itself tainted for it (E), which no kernel of ours acts on.
fn unsigned(module: &[u8]) -> &[u8] {
    const DESCRIPTION: usize = 12;
    let signed = || {
        let rest = module.strip_suffix(b"~Module signature appended~\n")?;
        let (rest, description) = rest.split_last_chunk::<DESCRIPTION>()?;
        let [.., a, b, c, d] = *description;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        rest.get(..rest.len().checked_sub(length)?)
    };
    signed().unwrap_or(module)
}

/// Entries of a newc archive, all root's, none with a time.
struct Archive<W> {
    writer: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn new(writer: W) -> Self {
        Archive { writer, inode: 0 }
    }

    fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Directory).nlink(2), &[])
    }

    fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        let entry = Builder::new(name).mode(0o600).set_mode_file_type(ModeFileType::Char);
        self.entry(entry.rdev_major(major).rdev_minor(minor), &[])
    }

    fn program(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Regular), bytes)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(Builder::new(name).mode(0o644).set_mode_file_type(ModeFileType::Regular), bytes)
    }

    fn entry(&mut self, entry: Builder, bytes: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut writer = entry.ino(self.inode).write(&mut self.writer, length);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}

/// Fails unless the archive of modules at `path` reads as one to its end.
pub fn check_modules(path: &Path) -> Result<()> {
    let corrupt = |why: &dyn ToString| BuildError::corrupt(path.display().to_string(), why.to_string());
    let bytes = fs::read(path).at(path)?;
    let mut rest = bytes.as_slice();
    loop {
        let entry = cpio::NewcReader::new(rest).map_err(|error| corrupt(&error))?;
        if entry.entry().is_trailer() {
            return Ok(());
        }
        rest = entry.finish().map_err(|error| corrupt(&error))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::elf::tests::small_elf;

    fn list(bytes: &[u8]) -> Vec<(String, u32, u32, u32)> {
        let mut entries = Vec::new();
        let mut rest = bytes;
        loop {
            let reader = cpio::NewcReader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                return entries;
            }
            assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0));
            entries.push((entry.name().to_owned(), entry.mode(), entry.file_size(), entry.rdev_major()));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn init_a_console_and_the_modules_in_order_are_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let [modules, agent, out, again] = ["m", "a", "o", "o2"].map(|name| folder.path().join(name));
        fs::write(&agent, small_elf(4096)).unwrap();
        pack_modules(&modules, &[("zeta".into(), vec![1; 5]), ("alpha".into(), vec![2; 8])]).unwrap();
        check_modules(&modules).unwrap();
        let packed = pack_initramfs(&modules, &agent, &out).unwrap();
        assert_eq!(pack_initramfs(&modules, &agent, &again).unwrap(), packed);
        let bytes = fs::read(&out).unwrap();
        let entries = list(&bytes);
        let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "dev",
                "proc",
                "run",
                "sys",
                "sysroot",
                "dev/console",
                "init",
                "modules",
                "modules/000-zeta.ko",
                "modules/001-alpha.ko"
            ]
        );
        assert_eq!(entries[5], ("dev/console".into(), 0o020_600, 0, 5));
        assert_eq!(entries[6], ("init".into(), 0o100_755, 4096, 0));
    }

    #[test]
    fn a_signature_is_taken_off_and_nothing_else() {
        let signed = |length: u32| {
            let mut module = b"module".to_vec();
            module.extend(b"sig");
            module.extend([0, 0, 2, 0, 0, 0, 0, 0]);
            module.extend(length.to_be_bytes());
            module.extend(b"~Module signature appended~\n");
            module
        };
        assert_eq!(unsigned(&signed(3)), b"module");
        assert_eq!(unsigned(&signed(10)), signed(10), "longer than what is there");
        assert_eq!(unsigned(&signed(3)[..40]), &signed(3)[..40]);
        assert_eq!(unsigned(b"module"), b"module");
    }

    #[test]
    fn an_empty_archive_has_these_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        pack_modules(&path, &[]).unwrap();
        let bytes = fs::read(&path).unwrap();
        let head = "07070100000001000041ed0000000000000000000000020000000000000000000000000000000000000000000000000000000800000000modules\0";
        assert_eq!(str::from_utf8(&bytes[..head.len()]).unwrap(), head);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn an_agent_that_cannot_run_alone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [modules, out] = ["m", "o"].map(|name| folder.path().join(name));
        pack_modules(&modules, &[]).unwrap();
        let error = pack_initramfs(&modules, Path::new("/proc/self/exe"), &out).unwrap_err();
        assert!(matches!(error, BuildError::Unsupported { .. }), "{error}");
    }

    #[test]
    fn a_cut_archive_of_modules_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        pack_modules(&path, &[("a".into(), vec![7; 5000])]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(check_modules(&path), Err(BuildError::Corrupt { .. })));
    }
}
