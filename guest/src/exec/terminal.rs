//! The host's side of a command's terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use banger_schemas::guest::TtySize;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::fd::{Owned, registered};
use crate::sys::terminal::{resize, winsize};

impl Owned for File {}

/// A terminal whose other side is the command's.
#[derive(Debug)]
pub(super) struct Terminal(Rc<AsyncFd<File>>);

impl Terminal {
    /// Makes a terminal; the second half is the command's.
    pub(super) fn open(size: TtySize) -> io::Result<(Terminal, OwnedFd)> {
        let OpenptyResult { master, slave } = openpty(&winsize(size), None)?;
        for fd in [&master, &slave] {
            // openpty(3) cannot be asked for it. Nothing else of this thread spawns in between.
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        Ok((Terminal(Rc::new(registered(File::from(master))?)), slave))
    }

    pub(super) fn handle(&self) -> Handle {
        Handle(self.0.clone())
    }

    pub(super) fn resize(&self, size: TtySize) -> io::Result<()> {
        Ok(resize(self.0.get_ref(), size)?)
    }

    /// The character that ends the input, where the command's terminal has one now.
    pub(super) fn end_of_input(&self) -> Option<u8> {
        let state = tcgetattr(self.0.get_ref()).ok()?;
        let line_wise = state.local_flags.contains(LocalFlags::ICANON);
        line_wise.then(|| state.control_chars[SpecialCharacterIndices::VEOF as usize])
    }
}

/// The terminal as a stream.
#[derive(Debug)]
pub(super) struct Handle(Rc<AsyncFd<File>>);

impl AsyncRead for Handle {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let target = buf.initialize_unfilled();
            match guard.try_io(|fd| fd.get_ref().read(target)) {
                Ok(Ok(length)) => {
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // The last process closed its side: a terminal's way to say end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Handle {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| fd.get_ref().write(buf)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
