//! Persistent TAP devices, by ioctl: rtnetlink cannot make one.
#![allow(unsafe_code, reason = "TUN's ioctls take pointers; nix generates unsafe functions for them")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

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

// linux/if_tun.h: _IOW('T', 202, int) and _IOW('T', 203, int). The first takes a pointer to struct ifreq, whatever its
// number says, and the second takes its argument by value.
nix::ioctl_readwrite_bad!(set_interface, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), Request);
nix::ioctl_write_int_bad!(set_persistent, nix::request_code_write!(b'T', 203, size_of::<libc::c_int>()));

/// Opens `/dev/net/tun`.
pub fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

/// Makes the TAP of this name in the present network namespace, or opens it again if it is there and nobody holds it.
/// It stays when the descriptor is closed. Frames carry a virtio-net header, as QEMU and Firecracker want it.
pub fn open(name: &str) -> io::Result<OwnedFd> {
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
    // SAFETY: the descriptor is open, and the argument is a plain number.
    unsafe { set_persistent(device.as_raw_fd(), 1) }?;
    Ok(device.into())
}
