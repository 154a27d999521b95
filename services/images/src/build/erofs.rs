//! The superblock of an EROFS image: enough to know that a file is one, whole, and readable by the guest's kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::{At, BuildError, Result};

const OFFSET: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Kernel 6.1 reads blocks of 4 KiB only.
const BLOCK_BITS: u8 = 12;

/// What a superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    pub blocks: u32,
    pub inodes: u64,
}

/// Reads the superblock of `file`, and fails unless the file is as long as it says. Costs one read.
pub fn check(file: &File) -> Result<Superblock> {
    let corrupt = |why: &str| BuildError::corrupt("the image", why);
    let length = file.metadata().when("the image")?.len();
    let mut block = [0; 128];
    file.read_exact_at(&mut block, OFFSET).map_err(|_| corrupt("it is too short"))?;
    if u32::from_le_bytes(field(&block, 0)) != MAGIC {
        return Err(corrupt("it is no EROFS file system"));
    }
    let [bits] = field(&block, 12);
    if bits != BLOCK_BITS {
        return Err(BuildError::unsupported("the image", format!("its blocks are of 2^{bits} bytes, not 4096")));
    }
    let found =
        Superblock { blocks: u32::from_le_bytes(field(&block, 36)), inodes: u64::from_le_bytes(field(&block, 16)) };
    if found.blocks == 0 || found.inodes == 0 {
        return Err(corrupt("it is empty"));
    }
    if length < u64::from(found.blocks) << BLOCK_BITS {
        return Err(corrupt("it is cut off"));
    }
    Ok(found)
}

fn field<const N: usize>(block: &[u8; 128], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn image(change: impl FnOnce(&mut Vec<u8>)) -> File {
        let mut bytes = vec![0; 3 * 4096];
        bytes[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[1024 + 12] = BLOCK_BITS;
        bytes[1024 + 16] = 9;
        bytes[1024 + 36] = 3;
        change(&mut bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_whole_image_passes() {
        assert_eq!(check(&image(|_| ())).unwrap(), Superblock { blocks: 3, inodes: 9 });
    }

    #[test]
    fn a_cut_image_is_damaged() {
        for length in [0, 1023, 1100, 4096, 3 * 4096 - 1] {
            let file = image(|bytes| bytes.truncate(length));
            assert!(matches!(check(&file), Err(BuildError::Corrupt { .. })), "{length}");
        }
    }

    #[test]
    fn another_file_system_is_damaged_and_other_blocks_are_unsupported() {
        assert!(matches!(check(&image(|bytes| bytes[1024] ^= 1)), Err(BuildError::Corrupt { .. })));
        assert!(matches!(check(&image(|bytes| bytes[1024 + 12] = 9)), Err(BuildError::Unsupported { .. })));
        assert!(matches!(check(&image(|bytes| bytes[1024 + 36] = 0)), Err(BuildError::Corrupt { .. })));
    }
}
