//! The agent's name in the process table.
#![allow(unsafe_code, reason = "prctl has no safe form for these options")]

use nix::errno::Errno;
use nix::libc;

/// systemd's final killing spree spares processes of root whose command line begins with `@`
/// (systemd.io/ROOT_STORAGE_DAEMONS; `ignore_proc` in systemd's src/shared/killall.c).
const TITLE: &[u8] = b"@banger-agent\0";

/// Makes `/proc/self/cmdline` read [`TITLE`].
pub(crate) fn survive_init() -> nix::Result<()> {
    // On the heap: the kernel shows a command line only from anonymous memory (`get_mm_cmdline`, FOLL_ANON).
    let title: &'static [u8] = Box::leak(Box::from(TITLE));
    let start = title.as_ptr() as libc::c_ulong;
    let end = start + title.len() as libc::c_ulong;
    // The start first: the kernel wants start <= end at each step, and the stack lies above the heap.
    for (option, address) in [(libc::PR_SET_MM_ARG_START, start), (libc::PR_SET_MM_ARG_END, end)] {
        // SAFETY: the kernel only remembers the addresses, and what was leaked stays mapped.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_MM, option, address, 0, 0) })?;
    }
    // SAFETY: a constant C string of less than 16 bytes, which the kernel copies.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NAME, c"banger-agent".as_ptr()) }).map(drop)
}
