//! Persistent TAP devices, by ioctl: rtnetlink cannot make one.
#![allow(unsafe_code, reason = "TUN's ioctls take pointers; nix generates unsafe functions for them")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use banger_schemas::VmId;
use banger_schemas::id::TAP_PREFIX;
use nix::libc;
use nix::unistd::geteuid;

use super::{Error, Refusal};

/// The device that TAPs are made with.
pub const DEVICE: &str = "/dev/net/tun";

const NAME_SIZE: usize = libc::IFNAMSIZ;

/// `struct ifreq` as far as `TUNSETIFF` reads it: name, flags, padding to the size of the kernel's.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    name: [u8; NAME_SIZE],
    flags: i16,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

// linux/if_tun.h: _IOW('T', 202, int), _IOW('T', 203, int) and _IOW('T', 204, int). The first takes a pointer to struct
// ifreq, whatever its number says, and the others take their argument by value.
nix::ioctl_readwrite_bad!(set_interface, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), Request);
nix::ioctl_write_int_bad!(set_persistent, nix::request_code_write!(b'T', 203, size_of::<libc::c_int>()));
nix::ioctl_write_int_bad!(set_owner, nix::request_code_write!(b'T', 204, size_of::<libc::c_int>()));

/// Opens `/dev/net/tun`.
pub fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

/// Makes the TAP of this name in the present network namespace, or opens it again if it is there and nobody holds it.
/// It stays when the descriptor is closed. Frames carry a virtio-net header, as QEMU and Firecracker want it.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let tap = attach(name)?;
    keep(&tap)?;
    Ok(tap)
}

/// The same, but one that is new goes with its descriptor until it is to be kept: who dies in between leaves nothing.
pub fn attach(name: &str) -> io::Result<OwnedFd> {
    let device = open_device()?;
    if name.is_empty() || name.len() >= NAME_SIZE || name.contains(['%', '/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name for a TAP")));
    }
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    let mut request = Request { name: [0; NAME_SIZE], flags, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the descriptor is open, and `request` is a whole, initialised struct ifreq that lives over the call; the
    // kernel reads it and writes the name back, nothing beyond it.
    unsafe { set_interface(device.as_raw_fd(), &raw mut request) }?;
    Ok(device.into())
}

/// Lets the TAP outlive its descriptor.
pub fn keep(tap: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the argument is a plain number.
    unsafe { set_persistent(tap.as_raw_fd(), 1) }?;
    Ok(())
}

/// Takes the TAP from everybody: one without an owner may be opened by any user of the host, by its name, whenever its
/// VMM is not there. Who holds the descriptor may make itself the owner.
pub fn own(tap: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the argument is a plain number.
    unsafe { set_owner(tap.as_raw_fd(), geteuid().as_raw().cast_signed()) }?;
    Ok(())
}

/// What it means that a TAP cannot be opened.
pub fn failed(name: &str, error: &io::Error) -> Error {
    if let Some(refusal) = device_refusal(error) {
        return Error::Refused(refusal);
    }
    let message = match error.raw_os_error() {
        Some(libc::EBUSY) => format!("{name} is held by another process; its VM still runs"),
        _ => error.to_string(),
    };
    Error::Op { op: "opening a TAP".to_owned(), message }
}

/// What a failure to open the TUN device means, if it is about the device.
pub fn device_refusal(error: &io::Error) -> Option<Refusal> {
    let errno = error.raw_os_error()?;
    match errno {
        libc::EACCES | libc::EPERM => Some(Refusal::DevTunClosed { errno }),
        libc::ENOENT | libc::ENXIO | libc::ENODEV => Some(Refusal::DevTunMissing { errno }),
        _ => None,
    }
}

/// Whose TAP this is by its name.
pub fn vm_of(tap: &str) -> Option<VmId> {
    let vm: VmId = tap.strip_prefix(TAP_PREFIX)?.parse().ok()?;
    (vm.tap_name() == tap).then_some(vm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_device_and_an_absent_one_have_their_own_cures() {
        let of = |errno| device_refusal(&io::Error::from_raw_os_error(errno)).map(|refusal| refusal.cure());
        assert!(of(libc::EACCES).unwrap().contains("chmod 0666"));
        assert!(of(libc::ENOENT).unwrap().contains("modprobe tun"));
        assert_eq!(of(libc::EBUSY), None);
    }
}
