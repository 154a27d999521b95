//! libc's heap.
#![allow(unsafe_code, reason = "mallopt has no safe form")]

use nix::libc;

/// More than a frame's way through the agent needs at once.
const SPARE: libc::c_int = 4 * 1024 * 1024;

/// Keeps freed memory. libc would give the buffers of every 64 KiB frame back to the kernel and fault them in
/// again for the next one, which costs more than moving the bytes.
pub(crate) fn keep_freed_memory() {
    // SAFETY: sets a number of the allocator. A refusal costs speed only.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE) };
}
