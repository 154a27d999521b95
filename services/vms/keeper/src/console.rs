//! The last of what the guest wrote to its serial port, and those who follow it.
//!
//! The guest may write for ever and a reader may never read: the ring keeps its size, the VM is never waited for,
//! and a reader that is too slow misses what the ring has lost by then.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::fds;

/// What the console remembers.
pub(crate) const RING: usize = 256 * 1024;
/// Written to a reader at a time.
const CHUNK: usize = 64 * 1024;

/// A guest's console.
#[derive(Debug)]
pub(crate) struct Console {
    ring: RefCell<Ring>,
    news: watch::Sender<News>,
}

/// What a follower waits for.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    written: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Bytes that ever went in: the position behind the last one.
    written: u64,
}

impl Ring {
    fn push(&mut self, mut new: &[u8]) {
        self.written += new.len() as u64;
        new = &new[new.len().saturating_sub(RING)..];
        let excess = (self.bytes.len() + new.len()).saturating_sub(RING);
        self.bytes.drain(..excess);
        self.bytes.extend(new);
    }

    /// At most `out` bytes from position `at` on, or from the oldest kept. How many, and the position behind them.
    fn read(&self, at: u64, out: &mut [u8]) -> (usize, u64) {
        let oldest = self.written - self.bytes.len() as u64;
        let at = at.clamp(oldest, self.written);
        let skip = usize::try_from(at - oldest).unwrap_or(usize::MAX);
        let (front, back) = self.bytes.as_slices();
        let (front, back) = match front.get(skip..) {
            Some(front) => (front, back),
            None => (&back[skip - front.len()..], [].as_slice()),
        };
        // Slices never fail to be read.
        let got = Read::chain(front, back).read(out).unwrap_or(0);
        (got, at + got as u64)
    }
}

impl Console {
    pub(crate) fn new() -> Self {
        Console { ring: RefCell::default(), news: watch::Sender::default() }
    }

    /// Takes in what the guest writes until the VMM closes its end. `first` is called at the first byte.
    pub(crate) async fn fill(&self, mut from: impl AsyncRead + Unpin, first: impl FnOnce()) {
        let mut first = Some(first);
        let mut chunk = vec![0; CHUNK];
        while let Ok(got @ 1..) = from.read(&mut chunk).await {
            if let Some(first) = first.take() {
                first();
            }
            self.ring.borrow_mut().push(&chunk[..got]);
            self.news.send_modify(|news| news.written += got as u64);
        }
    }

    /// Remembers what is in a file: what a guest that goes on said before.
    pub(crate) fn read_from(&self, file: &File) -> io::Result<()> {
        let mut said = Vec::new();
        file.take(RING as u64).read_to_end(&mut said)?;
        self.ring.borrow_mut().push(&said);
        self.news.send_modify(|news| news.written += said.len() as u64);
        Ok(())
    }

    /// Writes what is remembered to a file, for those who ask when nobody keeps the VM any more.
    pub(crate) fn write_to(&self, mut file: File) -> io::Result<()> {
        let ring = self.ring.borrow();
        let (front, back) = ring.bytes.as_slices();
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(front)?;
        file.write_all(back)
    }

    /// Nothing will follow: readers end when they have read the rest.
    pub(crate) fn end(&self) {
        self.news.send_modify(|news| news.ended = true);
    }

    /// Writes what the ring holds and, if `follow`, what comes. Ends when the reader is gone.
    pub(crate) async fn copy_to(self: Rc<Self>, reader: UnixStream, follow: bool) -> io::Result<()> {
        let mut news = self.news.subscribe();
        let stop = if follow { u64::MAX } else { news.borrow().written };
        let (from_reader, mut to_reader) = reader.into_split();
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        let copying = async {
            loop {
                let News { written, ended } = *news.borrow_and_update();
                while at < written.min(stop) {
                    let (got, next) = self.ring.borrow().read(at, &mut chunk);
                    at = next;
                    to_reader.write_all(&chunk[..got]).await?;
                }
                if ended || at >= stop || news.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            copied = copying => copied,
            () = gone(from_reader) => Ok(()),
        }
    }
}

/// Waits until the reader has closed its socket, which a quiet console would never tell.
async fn gone(mut reader: tokio::net::unix::OwnedReadHalf) {
    let mut ignored = [0; 64];
    while let Ok(1..) = reader.read(&mut ignored).await {}
    if !fds::hung_up(reader.as_ref()) {
        // It only promised to write nothing.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_bytes_and_its_size() {
        let mut ring = Ring::default();
        for round in 0..2000u32 {
            ring.push(&round.to_le_bytes().repeat(100));
        }
        assert_eq!(ring.bytes.len(), RING);
        let mut out = vec![0; RING];
        let (got, end) = ring.read(0, &mut out);
        assert_eq!((got, end), (RING, 2000 * 400));
        assert_eq!(out[RING - 4..], 1999u32.to_le_bytes());
        ring.push(&vec![7; 3 * RING]);
        assert_eq!(ring.bytes.len(), RING);
    }

    #[test]
    fn reading_goes_on_where_it_stopped_or_skips_what_is_lost() {
        let mut ring = Ring::default();
        ring.push(b"hello");
        let mut out = [0; 3];
        assert_eq!(ring.read(0, &mut out), (3, 3));
        assert_eq!(ring.read(3, &mut out), (2, 5));
        assert_eq!(&out[..2], b"lo");
        assert_eq!(ring.read(5, &mut out), (0, 5));
        ring.push(&vec![b'x'; RING]);
        assert_eq!(ring.read(5, &mut out), (3, 8));
        ring.push(b"yz");
        let (_, next) = ring.read(5, &mut out);
        assert_eq!(next, 7 + 3, "two bytes were lost");
        // Both ends of the ring's buffer are read, whatever its inner cut.
        let (mut at, mut seen) = (0, Vec::new());
        loop {
            let (got, next) = ring.read(at, &mut out);
            if got == 0 {
                break;
            }
            seen.extend_from_slice(&out[..got]);
            at = next;
        }
        assert_eq!(seen.len(), RING);
        assert!(seen.ends_with(b"xyz"));
    }

    #[tokio::test]
    async fn a_reader_that_never_reads_stops_nobody() {
        let console = Rc::new(Console::new());
        let (reader, kept) = UnixStream::pair().unwrap();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(console.clone().copy_to(reader, true));
        local
            .run_until(async {
                let text = vec![b'x'; 4 * RING];
                console.fill(text.as_slice(), || ()).await;
            })
            .await;
        assert_eq!(console.ring.borrow().bytes.len(), RING);
        drop(kept);
        local.await;
    }
}
