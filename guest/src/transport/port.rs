//! The virtio-serial port named `agent`: one long-lived byte stream, on which the host comes and goes.
//!
//! A port that the host left reports a hang-up for as long as nobody is there, which the runtime would take for
//! final. So the port is watched through an epoll instance of its own, whose events are only ever "look again".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::fd::{Owned, registered};

const NAME: &str = "agent";
const PORTS: &str = "/sys/class/virtio-ports";
/// Between two looks for the port: while drivers load, and in a VM that probably has none.
const EAGER_PAUSE: Duration = Duration::from_millis(4);
const PATIENT_PAUSE: Duration = Duration::from_secs(5);
const EAGER_LOOKS: u32 = 1000;

/// An open port. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Port(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    changes: AsyncFd<Watch>,
}

#[derive(Debug)]
struct Watch(Epoll);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}
impl Owned for Watch {}

/// Waits until the driver has found the port, for as long as that takes: a VM without one has vsock.
pub(crate) async fn find() -> PathBuf {
    let mut looks = 0;
    loop {
        if let Some(path) = named_port() {
            return path;
        }
        looks += 1;
        tokio::time::sleep(if looks < EAGER_LOOKS { EAGER_PAUSE } else { PATIENT_PAUSE }).await;
    }
}

fn named_port() -> Option<PathBuf> {
    let device = fs::read_dir(PORTS).ok()?.filter_map(Result::ok).find(|entry| {
        let name = fs::read_to_string(entry.path().join("name"));
        name.is_ok_and(|name| name.trim_end() == NAME)
    })?;
    let path = PathBuf::from("/dev").join(device.file_name());
    path.exists().then_some(path)
}

impl Port {
    pub(crate) fn open(path: &std::path::Path) -> io::Result<Port> {
        let nonblocking = nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(path)?;
        let watch = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        watch.add(&file, EpollEvent::new(interest, 0))?;
        Ok(Port(Rc::new(Inner { file, changes: registered(Watch(watch))? })))
    }

    /// Waits until a host is at the other end.
    pub(crate) async fn connected(&self) -> io::Result<()> {
        loop {
            let mut state = [PollFd::new(self.0.file.as_fd(), PollFlags::POLLIN)];
            poll(&mut state, PollTimeout::ZERO)?;
            if !state[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
                return Ok(());
            }
            std::future::poll_fn(|cx| self.poll_change(cx)).await?;
        }
    }

    /// Ready when anything about the port changed since the last call.
    fn poll_change(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.0.changes.poll_read_ready(cx))?;
        let mut events = [EpollEvent::empty(); 1];
        // Takes the event, so that the next change makes a new edge; the caller looks at the port afterwards.
        guard.get_inner().0.wait(&mut events, EpollTimeout::ZERO)?;
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }

    fn poll_io(
        &self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(&File) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match operation(&self.0.file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_change(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let target = buf.initialize_unfilled();
        let length = ready!(self.poll_io(cx, |mut file| file.read(target)))?;
        buf.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |mut file| file.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
