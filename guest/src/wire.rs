//! One stream of the channel, shared by the half that reads and the half that writes.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// A yamux stream. Clones are the same stream, which is reset when the last one goes without a shutdown.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Rc<RefCell<Compat<yamux::Stream>>>);

impl Wire {
    pub(crate) fn new(stream: yamux::Stream) -> Self {
        Wire(Rc::new(RefCell::new(stream.compat())))
    }

    /// Whether the host dropped the stream, though bytes that it sent before may still be unread.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.borrow().get_ref().is_closed()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
