//! Takes the plain kernel out of a bzImage: every VMM boots it, and it starts faster than one that unpacks itself.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;

use super::elf;
use super::error::{BuildError, Result};

// Documentation/arch/x86/boot.rst: offsets in the setup header.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol that says where the payload lies.
const FIRST_VERSION: u16 = 0x0208;

const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Compressions a kernel may be built with, by their first bytes.
const OTHERS: &[(&[u8], &str)] = &[
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x1f, 0x8b], "gzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
    (b"BZh", "bzip2"),
    (&[0x5d, 0, 0], "lzma"),
    (&[0x89, b'L', b'Z', b'O'], "lzo"),
];

/// No kernel is larger; a header that says so is damaged or hostile.
const MAX_VMLINUX: u64 = 512 << 20;

/// The ELF kernel within `image`.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    if bytes(image, MAGIC)? != *b"HdrS" || u16::from_le_bytes(bytes(image, VERSION)?) < FIRST_VERSION {
        return Err(corrupt("it has no setup header of a Linux kernel"));
    }
    let [sectors] = bytes(image, SETUP_SECTS)?;
    // 0 means 4, for reasons of history.
    let setup = (if sectors == 0 { 4 } else { usize::from(sectors) } + 1) * 512;
    let start = setup.saturating_add(u32::from_le_bytes(bytes(image, PAYLOAD_OFFSET)?) as usize);
    let length = u32::from_le_bytes(bytes(image, PAYLOAD_LENGTH)?) as usize;
    let payload =
        image.get(start..start.saturating_add(length)).ok_or_else(|| corrupt("it ends before its payload does"))?;
    let kernel = decompress(payload)?;
    elf::check_vmlinux(&kernel, kernel.len() as u64)?;
    Ok(kernel)
}

/// The kernel's build appends the unpacked length to what the compressor wrote.
fn decompress(payload: &[u8]) -> Result<Vec<u8>> {
    let (packed, length) = payload.split_last_chunk::<4>().ok_or_else(|| corrupt("its payload is empty"))?;
    if !packed.starts_with(&LZ4_LEGACY) {
        return Err(match OTHERS.iter().find(|(magic, _)| packed.starts_with(magic)) {
            Some((_, name)) => BuildError::unsupported("the kernel", format!("it is compressed with {name}, not lz4")),
            None => corrupt("its payload is compressed in no known way"),
        });
    }
    let length = u64::from(u32::from_le_bytes(*length));
    if length > MAX_VMLINUX {
        return Err(corrupt(format!("it claims to unpack to {} MiB", length >> 20)));
    }
    let mut kernel = Vec::with_capacity(length as usize);
    FrameDecoder::new(packed).take(length + 1).read_to_end(&mut kernel).map_err(corrupt)?;
    if kernel.len() as u64 != length {
        return Err(corrupt(format!("it should unpack to {length} bytes, not {}", kernel.len())));
    }
    Ok(kernel)
}

fn bytes<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N]> {
    let found = image.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(|| corrupt("it is too short for a kernel"))
}

fn corrupt(why: impl ToString) -> BuildError {
    BuildError::corrupt("the kernel's bzImage", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::elf::tests::small_elf;

    /// A bzImage of the smallest kind: two sectors of setup, a gap, then the payload.
    fn bzimage(kernel: &[u8]) -> Vec<u8> {
        let mut packed = LZ4_LEGACY.to_vec();
        for block in kernel.chunks(8 << 20) {
            let block = lz4_flex::block::compress(block);
            packed.extend((block.len() as u32).to_le_bytes());
            packed.extend(block);
        }
        packed.extend((kernel.len() as u32).to_le_bytes());
        let mut image = vec![0; 3 * 512 + 16];
        image[SETUP_SECTS] = 2;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        image.extend(packed);
        image.extend([0xaa; 100]);
        image
    }

    #[test]
    fn the_kernel_comes_out_as_it_went_in() {
        let kernel = small_elf(9 << 20);
        assert!(vmlinux(&bzimage(&kernel)).unwrap() == kernel);
    }

    #[test]
    fn a_cut_image_is_damaged_wherever_it_is_cut() {
        let image = bzimage(&small_elf(4096));
        let whole = image.len() - 100;
        for length in (0..whole).step_by(7).chain([whole - 1]) {
            assert!(matches!(vmlinux(&image[..length]), Err(BuildError::Corrupt { .. })), "{length}");
        }
        assert!(vmlinux(&image[..whole]).is_ok());
    }

    #[test]
    fn no_changed_byte_makes_it_panic_or_grow() {
        let image = bzimage(&small_elf(4096));
        for at in (SETUP_SECTS..0x250).chain(1536..image.len()) {
            for value in [0, 0x7f, 0xff] {
                let mut image = image.clone();
                image[at] = value;
                if let Ok(kernel) = vmlinux(&image) {
                    assert_eq!(kernel.len(), 4096);
                }
            }
        }
    }

    #[test]
    fn another_compression_is_named() {
        let mut image = bzimage(&small_elf(4096));
        image[3 * 512 + 16..][..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
        assert!(vmlinux(&image).unwrap_err().to_string().contains("zstd"));
    }

    #[test]
    fn a_claim_of_gigabytes_is_refused_before_memory_is_taken() {
        let mut image = bzimage(&small_elf(4096));
        let end = image.len() - 100;
        image[end - 4..end].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(vmlinux(&image).unwrap_err().to_string().contains("MiB"));
    }
}
