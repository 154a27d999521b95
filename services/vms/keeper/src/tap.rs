//! What a TAP's descriptor tells: the name of the device, and the network namespace that it is in.
//!
//! For a VMM that takes no descriptor. Knows nothing of who made the TAP.
#![allow(unsafe_code, reason = "ioctls take pointers and return descriptors; nix generates unsafe functions for them")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::libc;

use crate::fds::Namespaces;

// linux/if_tun.h: _IOR('T', 210, unsigned int), which writes a struct ifreq, and _IO('T', 227).
nix::ioctl_read_bad!(get_interface, nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()), libc::ifreq);
nix::ioctl_none!(get_network, b'T', 227);
// linux/nsfs.h: _IO(0xb7, 1).
nix::ioctl_none!(get_owner, 0xb7, 1);

/// How a TAP is found without its descriptor.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// Where it is to be looked for, if that is not where this process is.
    pub(crate) namespaces: Option<Namespaces>,
}

/// Where the TAP of this descriptor is.
pub(crate) fn place(tap: OwnedFd) -> io::Result<Place> {
    Ok(Place { name: name(&tap)?, namespaces: namespaces(&tap)? })
}

fn name(tap: &OwnedFd) -> io::Result<String> {
    // SAFETY: a struct ifreq is numbers and bytes, for which zeroes are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes one struct ifreq.
    unsafe { get_interface(tap.as_raw_fd(), &raw mut request) }?;
    let bytes: Vec<u8> =
        request.ifr_name.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the TAP's name is no text"))
}

/// The kernel tells it to those who have rights there, as a user has over the namespaces of their own. Everybody else
/// was given a TAP of their own namespace.
fn namespaces(tap: &OwnedFd) -> io::Result<Option<Namespaces>> {
    // SAFETY: the descriptor is open; the result is a descriptor of our own.
    let network = unsafe { get_network(tap.as_raw_fd()) };
    let Ok(network) = network else { return Ok(None) };
    let network = owned(network);
    if is_ours(&network, "net")? {
        return Ok(None);
    }
    // SAFETY: the same.
    let user = owned(unsafe { get_owner(network.as_raw_fd()) }?);
    let user = if is_ours(&user, "user")? { None } else { Some(user) };
    Ok(Some(Namespaces { user, network }))
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with what an ioctl has just opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn is_ours(namespace: &OwnedFd, kind: &str) -> io::Result<bool> {
    let theirs = File::from(namespace.try_clone()?).metadata()?;
    let ours = std::fs::metadata(format!("/proc/self/ns/{kind}"))?;
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_has_no_place() {
        let file = File::open("/dev/null").unwrap();
        assert!(place(file.into()).is_err());
    }
}
