//! Whether KVM runs a guest here. `/dev/kvm` that opens, and even makes a vCPU, may still not run one; so each VMM is
//! given a guest of a few bytes. What they are given is never a file that could stay behind.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A guest that runs under KVM ends the probe in a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// What it means when one does not.
const HANGS: &str = "/dev/kvm opens, but a guest in it does not run";
/// Descriptors of a probe.
const GUEST: i32 = 3;
const CONFIGURATION: i32 = 4;

/// Whether `/dev/kvm` opens. Costs nothing, so it is looked at each time.
pub(super) fn open_kvm() -> Result<(), String> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound => "there is no /dev/kvm".into(),
            ErrorKind::PermissionDenied => "/dev/kvm may not be opened (join the group 'kvm')".into(),
            _ => format!("/dev/kvm: {error}"),
        }),
    }
}

/// Real-mode code that a boot sector runs: write 0x2a to QEMU's exit port (`isa-debug-exit`), then halt.
const BOOT_SECTOR: [u8; 9] = [0xba, 0xf4, 0x00, 0xb0, 0x2a, 0xee, 0xf4, 0xeb, 0xfd];
/// `isa-debug-exit` ends QEMU with (value << 1) | 1.
const QEMU_ENDED: i32 = 0x2a << 1 | 1;

/// Runs a boot sector in QEMU under KVM.
pub(super) fn qemu(program: &Path) -> Result<(), String> {
    let mut floppy = vec![0u8; 1_474_560];
    floppy[..BOOT_SECTOR.len()].copy_from_slice(&BOOT_SECTOR);
    floppy[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut command = Command::new(program);
    command
        .args(["-M", "pc,accel=kvm", "-cpu", "host", "-m", "16", "-nodefaults", "-no-user-config", "-nographic"])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive"])
        .arg(format!("file=/proc/self/fd/{GUEST},format=raw,if=floppy,readonly=on"));
    let (status, _) = run(command, &[(GUEST, &floppy)], HANGS)?;
    if status.code() == Some(QEMU_ENDED) { Ok(()) } else { Err(format!("the probe ended with {status}")) }
}

/// 64-bit code: write [`SAID`] to the serial port, reset the machine by the keyboard controller, halt.
const KERNEL: [u8; 14] = [0x66, 0xba, 0xf8, 0x03, 0xb0, SAID, 0xee, 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
const SAID: u8 = b'b';
/// Where it is loaded, and begins.
const ADDRESS: u64 = 16 << 20;

/// Runs a kernel in Firecracker, which is always under KVM.
pub(super) fn firecracker(program: &Path) -> Result<(), String> {
    let configuration = serde_json::json!({
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 64 },
        "boot-source": { "kernel_image_path": format!("/proc/self/fd/{GUEST}") },
        "drives": [],
    });
    let mut command = Command::new(program);
    command
        .args(["--no-api", "--log-path", "/dev/null", "--config-file"])
        .arg(format!("/proc/self/fd/{CONFIGURATION}"));
    let (status, said) =
        run(command, &[(GUEST, &elf()), (CONFIGURATION, configuration.to_string().as_bytes())], HANGS)?;
    if status.success() && said.contains(&SAID) { Ok(()) } else { Err(format!("the probe ended with {status}")) }
}

/// [`KERNEL`] as a program of one segment, elf(5).
fn elf() -> Vec<u8> {
    const HEADER: u16 = 64;
    const SEGMENT: u16 = 56;
    let length = KERNEL.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // ET_EXEC for EM_X86_64, version 1; where it begins, where segments are described, no sections, no flags.
    elf.extend([2u16, 62].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    elf.extend([ADDRESS, HEADER.into(), 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    elf.extend([HEADER, SEGMENT, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    // PT_LOAD, readable and executable: where it lies in the file, where in memory, how long it is here and there.
    elf.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    let segment = [(HEADER + SEGMENT).into(), ADDRESS, ADDRESS, length, length, 4096];
    elf.extend(segment.iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(KERNEL);
    elf
}

/// Runs a VMM that must end soon, else it is `late`, with these contents open under these numbers. How it ended, and what
/// it printed first.
pub(super) fn run(
    mut command: Command,
    contents: &[(i32, &[u8])],
    late: &str,
) -> Result<(ExitStatus, Vec<u8>), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: &dyn std::fmt::Display| format!("cannot run {program}: {error}");
    let mut mappings = Vec::new();
    for (child_fd, bytes) in contents {
        let parent_fd = memory(bytes).map_err(|error| failed(&error))?;
        mappings.push(FdMapping { parent_fd, child_fd: *child_fd });
    }
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.fd_mappings(mappings).map_err(|error| failed(&error))?.spawn().map_err(|e| failed(&e))?;
    let ended = wait(&mut child, late);
    // It has ended, or must.
    drop(child.kill());
    drop(child.wait());
    let mut said = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        drop(stdout.take(64).read_to_end(&mut said));
    }
    Ok((ended?, said))
}

fn memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"probe", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

fn wait(child: &mut Child, late: &str) -> Result<ExitStatus, String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begun.elapsed() > PATIENCE => return Err(late.to_owned()),
            #[allow(clippy::disallowed_methods, reason = "runs on a worker thread, for milliseconds")]
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand_in(script: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmm");
        let mut file = File::options().write(true).create_new(true).open(&path).unwrap();
        file.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        drop(file);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        firecracker(&path)
    }

    #[test]
    fn a_firecracker_is_believed_when_its_guest_has_spoken_and_ended() {
        assert_eq!(stand_in("test -s /proc/self/fd/3 && test -s /proc/self/fd/4 && printf b"), Ok(()));
        assert!(stand_in("exit 0").is_err());
        assert!(stand_in("printf b; exit 1").is_err());
        assert_eq!(stand_in("exec sleep 60").unwrap_err(), "/dev/kvm opens, but a guest in it does not run");
    }

    #[test]
    fn the_kernel_is_where_its_header_says() {
        let elf = elf();
        let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
        assert_eq!((word(24), word(32)), (ADDRESS, 64));
        assert_eq!(elf[usize::try_from(word(64 + 8)).unwrap()..], KERNEL);
    }
}
