//! A template's bytes: kept in files, used as sealed memory (memfd_create(2), `F_SEAL_WRITE`).
//!
//! A digest covers each page that is not empty, with its place: so it says the same of a file, of a copy that is
//! sparser, and of memory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use banger_bus::sparse;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const PAGE: usize = 4096;
/// Read and written at a time.
const PIECE: usize = 1 << 20;
const EMPTY: [u8; PAGE] = [0; PAGE];

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    size: u64,
    sha256: String,
}

/// Memory of this size that can be sealed.
pub(crate) fn fresh(size: u64) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = File::from(memfd_create(c"banger-template", flags)?);
    memory.set_len(size)?;
    Ok(memory)
}

/// From now on nobody can change a byte of it. Refused while somebody has it mapped for writing.
pub(crate) fn seal(memory: &File) -> io::Result<()> {
    let all = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(memory, FcntlArg::F_ADD_SEALS(all))?;
    Ok(())
}

/// Another opening of a memory, which reads from its beginning.
pub(crate) fn reopened(memory: &File) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", memory.as_raw_fd())).map(OwnedFd::from)
}

/// What a file holds.
pub(crate) fn contents(of: &File) -> io::Result<Contents> {
    walk(of, |_, _| Ok(()))
}

/// Copies what is not empty into a file that is empty and long enough; what was copied.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<Contents> {
    to.set_len(from.metadata()?.len())?;
    walk(from, |at, page| to.write_all_at(page, at))
}

/// Reads all pages that are not empty.
fn walk(file: &File, mut page_at: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<Contents> {
    let size = file.metadata()?.len();
    let (mut hasher, mut piece, mut at) = (Sha256::new(), vec![0; PIECE], 0);
    while let Some(range) = sparse::data(file, at)? {
        at = range.start - range.start % PAGE as u64;
        while at < range.end {
            let length = usize::try_from(size - at).map_or(PIECE, |left| left.min(PIECE));
            file.read_exact_at(&mut piece[..length], at)?;
            for page in piece[..length].chunks(PAGE) {
                if page != &EMPTY[..page.len()] {
                    hasher.update(at.to_le_bytes());
                    hasher.update(page);
                    page_at(at, page)?;
                }
                at += page.len() as u64;
            }
        }
    }
    Ok(Contents { size, sha256: hex::encode(hasher.finalize()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn contents_are_the_same_in_a_file_and_in_memory_and_differ_by_a_byte() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 20).unwrap();
        file.write_all_at(&[7; 5000], (3 << 20) + 100).unwrap();
        file.write_all_at(&[0; 100_000], 9 << 20).unwrap();
        file.write_all_at(b"end", (16 << 20) - 3).unwrap();
        let memory = fresh(0).unwrap();
        let copied = copy(&file, &memory).unwrap();
        assert_eq!(contents(&file).unwrap(), copied);
        assert_eq!(contents(&memory).unwrap(), copied);
        assert!(memory.metadata().unwrap().blocks() * 512 <= 5 * PAGE as u64, "empty pages take no room");
        file.write_all_at(&[8], (3 << 20) + 101).unwrap();
        assert_ne!(contents(&file).unwrap(), copied);
        file.write_all_at(&[7], (3 << 20) + 101).unwrap();
        file.set_len((16 << 20) - 1).unwrap();
        assert_ne!(contents(&file).unwrap(), copied, "cut");
    }

    #[test]
    fn what_is_moved_to_another_place_is_not_the_same() {
        let at = |offset| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            file.write_all_at(&[7; PAGE], offset).unwrap();
            contents(&file).unwrap()
        };
        assert_ne!(at(0), at(PAGE as u64));
    }

    #[test]
    fn sealed_memory_cannot_be_written_whoever_opens_it() {
        let memory = fresh(8192).unwrap();
        memory.write_all_at(b"kept", 0).unwrap();
        seal(&memory).unwrap();
        use std::os::fd::AsRawFd;
        let again = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        let again = again.unwrap();
        assert!(again.write_all_at(b"lost", 0).is_err() && again.set_len(0).is_err());
        let mut bytes = [0; 4];
        File::from(reopened(&memory).unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
    }
}
