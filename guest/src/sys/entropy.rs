//! Feeds the kernel's random pool.
#![allow(unsafe_code, reason = "ioctls of /dev/random")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// `struct rand_pool_info` of linux/random.h with its buffer.
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: i32,
    bytes: i32,
    buffer: [u8; 32],
}

// linux/random.h. The size in the number is that of the header: the buffer is a flexible array there.
const RNDADDENTROPY: u64 = nix::request_code_write!(b'R', 0x03, 8);
const RNDRESEEDCRNG: u64 = nix::request_code_none!(b'R', 0x07);

/// Adds a seed, credits every bit of it, and makes the generator use it at once: two guests that woke from one
/// snapshot draw different numbers from here on.
pub(crate) fn credit(seed: [u8; 32]) -> io::Result<()> {
    let random = OpenOptions::new().write(true).open("/dev/random")?;
    let info = RandPoolInfo { entropy_bits: 256, bytes: 32, buffer: seed };
    // SAFETY: the descriptor is open, `info` outlives the call and is as long as its `bytes` field says.
    nix::errno::Errno::result(unsafe { nix::libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) })?;
    // SAFETY: this request has no argument.
    nix::errno::Errno::result(unsafe { nix::libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) })?;
    Ok(())
}
