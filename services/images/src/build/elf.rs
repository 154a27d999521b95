//! Short looks at ELF files: is this a whole kernel, is this program self-contained, what does this module need?

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use super::error::{BuildError, Result};

/// Fails unless `head` begins a 64-bit x86 kernel that fits in a file of `length` bytes. `head` holds at least the
/// program headers, which lie at the front.
pub fn check_vmlinux(head: &[u8], length: u64) -> Result<()> {
    let corrupt = |why: &str| BuildError::corrupt("the kernel", why);
    let header = parse(head).map_err(|_| corrupt("it is no ELF file"))?;
    if header.e_type(LE) != elf::ET_EXEC || header.e_machine(LE) != elf::EM_X86_64 {
        return Err(corrupt("it is no x86-64 kernel"));
    }
    let segments = header.program_headers(LE, head).map_err(|_| corrupt("its program headers are cut off"))?;
    let loads = segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
    let mut ends = loads.map(|segment| segment.p_offset(LE).saturating_add(segment.p_filesz(LE))).peekable();
    if ends.peek().is_none() {
        return Err(corrupt("there is nothing to load in it"));
    }
    if ends.any(|end| end > length) {
        return Err(corrupt("it ends before its last segment does"));
    }
    Ok(())
}

/// Fails unless `program` is one that runs where there is nothing else: no loader, no libraries.
pub fn check_static(what: &str, program: &[u8]) -> Result<()> {
    let header = parse(program).map_err(|_| BuildError::corrupt(what, "it is no x86-64 program"))?;
    let segments = header.program_headers(LE, program).map_err(|error| BuildError::corrupt(what, error))?;
    if header.e_machine(LE) != elf::EM_X86_64 {
        return Err(BuildError::unsupported(what, "it is for another processor"));
    }
    if segments.iter().any(|segment| segment.p_type(LE) == elf::PT_INTERP) {
        return Err(BuildError::unsupported(what, "it needs a dynamic loader, and an initramfs has none"));
    }
    Ok(())
}

/// The `.modinfo` section of a kernel module: `key=value` strings, each ended by a zero.
pub fn modinfo(module: &[u8]) -> Option<&[u8]> {
    let header = parse(module).ok()?;
    let sections = header.sections(LE, module).ok()?;
    let (_, section) = sections.section_by_name(LE, b".modinfo")?;
    section.data(LE, module).ok()
}

fn parse(bytes: &[u8]) -> object::Result<&FileHeader64<LE>> {
    FileHeader64::<LE>::parse(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An executable of `length` bytes with one segment that spans it all.
    pub(crate) fn small_elf(length: usize) -> Vec<u8> {
        let mut elf = vec![0; length];
        elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        elf[16..20].copy_from_slice(&[2, 0, 62, 0]); // ET_EXEC, x86-64
        elf[20] = 1;
        elf[32] = 64; // e_phoff
        elf[52] = 64; // e_ehsize
        elf[54] = 56; // e_phentsize
        elf[56] = 1; // e_phnum
        elf[64] = 1; // PT_LOAD
        elf[96..104].copy_from_slice(&(length as u64).to_le_bytes()); // p_filesz
        for (at, byte) in elf.iter_mut().enumerate().skip(120) {
            *byte = (at / 3) as u8;
        }
        elf
    }

    /// A kernel module that says `depends=needs` and nothing else.
    pub(crate) fn small_module(needs: &str) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        elf[16..20].copy_from_slice(&[1, 0, 62, 0]); // ET_REL, x86-64
        elf[20] = 1;
        elf[52] = 64; // e_ehsize
        elf[58] = 64; // e_shentsize
        elf[60] = 3; // e_shnum
        elf[62] = 2; // e_shstrndx
        let info = format!("license=GPL\0depends={needs}\0name=x\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        elf.extend(info.as_bytes());
        elf.extend(names);
        let table = elf.len() as u64;
        elf[40..48].copy_from_slice(&table.to_le_bytes()); // e_shoff
        let section = |name: u32, kind: u32, offset: usize, length: usize| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            header
        };
        elf.extend(section(0, 0, 0, 0));
        elf.extend(section(1, 1, 64, info.len())); // SHT_PROGBITS
        elf.extend(section(10, 3, 64 + info.len(), names.len())); // SHT_STRTAB
        elf
    }

    #[test]
    fn a_whole_kernel_passes_and_a_short_one_does_not() {
        let kernel = small_elf(4096);
        check_vmlinux(&kernel, 4096).unwrap();
        assert!(matches!(check_vmlinux(&kernel, 4095), Err(BuildError::Corrupt { .. })));
        assert!(check_vmlinux(&kernel[..70], 4096).is_err());
        assert!(check_vmlinux(b"", 0).is_err());
        assert!(check_vmlinux(&[0; 4096], 4096).is_err());
    }

    #[test]
    fn a_program_that_needs_a_loader_is_refused() {
        let mut program = small_elf(4096);
        check_static("the agent", &program).unwrap();
        program[64] = elf::PT_INTERP.0 as u8;
        assert!(check_static("the agent", &program).unwrap_err().to_string().contains("loader"));
        assert!(check_static("the agent", b"#!/bin/sh\n").is_err());
    }
}
