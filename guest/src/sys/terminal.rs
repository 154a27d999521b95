//! Pseudo-terminals' ioctls.
#![allow(unsafe_code, reason = "TIOCSWINSZ has no safe form")]

use std::os::fd::{AsFd, AsRawFd};

use banger_schemas::guest::TtySize;
use nix::pty::Winsize;

nix::ioctl_write_ptr_bad!(set_window_size, nix::libc::TIOCSWINSZ, Winsize);

pub(crate) fn winsize(size: TtySize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Tells a terminal its size; its foreground processes get a `SIGWINCH`.
pub(crate) fn resize(terminal: impl AsFd, size: TtySize) -> nix::Result<()> {
    let size = winsize(size);
    // SAFETY: the descriptor is borrowed for the call and `size` outlives it.
    unsafe { set_window_size(terminal.as_fd().as_raw_fd(), &raw const size) }.map(drop)
}
