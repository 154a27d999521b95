//! Firecracker's vsock, from the host's side: a unix socket on which one asks for a port of the guest.
//!
//! `CONNECT <port>` is answered by `OK <number>`, or by nothing and an end where nobody listens (Firecracker,
//! docs/vsock.md). What is said afterwards is not known here.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::backend::Unreachable;

/// Where the agent listens (`guest/src/transport/vsock.rs`).
const PORT: u32 = 1024;
/// Between two tries at a guest that does not listen yet.
const PAUSE: Duration = Duration::from_millis(10);
/// A guest that runs accepts or refuses at once.
const ANSWER: Duration = Duration::from_secs(2);
/// No answer is longer: `OK`, a number of 32 bits, a line's end.
const LONGEST: usize = 16;
/// Answers that a guest which was there may owe, one after the other, before it is given up: its kernel has halted,
/// as it does at a power-off, since Firecracker has no device for that.
const OWED: u32 = 5;

/// The door to a guest's vsock. It stays open when its socket has no name any more.
#[derive(Debug)]
pub struct Vsock {
    socket: OwnedFd,
    /// The agent was there once.
    met: bool,
    patience: Duration,
}

/// What became of one try.
#[derive(Debug)]
enum Tried {
    There(UnixStream),
    /// Its guest says no, or its VMM says nothing that makes sense.
    Refused,
    Silent,
}

impl Vsock {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let socket = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        Ok(Vsock { socket: socket.into(), met: false, patience: ANSWER })
    }

    pub(crate) async fn connect(&mut self) -> Result<UnixStream, Unreachable> {
        let mut owed = 0;
        loop {
            match self.try_once().await.map_err(|_| Unreachable::Closed)? {
                Tried::There(stream) => {
                    self.met = true;
                    return Ok(stream);
                }
                Tried::Refused => owed = 0,
                Tried::Silent => owed += 1,
            }
            if self.met && owed == OWED {
                return Err(Unreachable::Halted);
            }
            sleep(PAUSE).await;
        }
    }

    /// Fails when there is no VMM to ask.
    async fn try_once(&self) -> io::Result<Tried> {
        let mut stream = match UnixStream::connect(format!("/proc/self/fd/{}", self.socket.as_raw_fd())).await {
            Ok(stream) => stream,
            // It has more connections to accept than it has places for.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Tried::Refused),
            Err(error) => return Err(error),
        };
        Ok(match timeout(self.patience, ask(&mut stream)).await {
            Ok(Ok(true)) => Tried::There(stream),
            Ok(_) => Tried::Refused,
            Err(_) => Tried::Silent,
        })
    }
}

async fn ask(stream: &mut UnixStream) -> io::Result<bool> {
    stream.write_all(format!("CONNECT {PORT}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // A byte at a time: what follows the line is the guest's.
    while answer.len() < LONGEST && answer.last() != Some(&b'\n') {
        answer.push(stream.read_u8().await?);
    }
    Ok(answer.starts_with(b"OK ") && answer.ends_with(b"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A VMM that gives each connection the next of these answers, and its own end after the last.
    fn door(answers: &'static [&'static [u8]]) -> Vsock {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 13];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"CONNECT 1024\n");
                stream.write_all(answer).await.unwrap();
                // An empty answer is none, for ever; others are followed by the end.
                if answer.is_empty() || answer.starts_with(b"OK") {
                    open.push(stream);
                }
            }
        });
        Vsock { patience: Duration::from_millis(100), ..Vsock::at(&path).unwrap() }
    }

    #[tokio::test]
    async fn a_guest_that_does_not_listen_yet_is_asked_again_and_nothing_of_its_first_words_is_lost() {
        let mut vsock = door(&[b"\n", b"NO\n", b"OK 1073741824\nhello"]);
        let mut stream = vsock.connect().await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_none() {
        let mut vsock = door(&[b"OK 00000000000000000000000000000000000", b"OK 1\n"]);
        vsock.connect().await.unwrap();
    }

    #[tokio::test]
    async fn a_vmm_that_is_gone_is_told() {
        let mut vsock = door(&[b"OK 1\n"]);
        vsock.connect().await.unwrap();
        assert!(matches!(vsock.connect().await, Err(Unreachable::Closed)));
    }

    #[tokio::test]
    async fn a_guest_that_was_there_and_answers_no_more_has_halted() {
        let mut vsock = door(&[b"", b"", b"", b"", b"", b"", b"OK 1\n", b"", b"", b"", b"", b"", b""]);
        vsock.connect().await.unwrap();
        assert!(matches!(vsock.connect().await, Err(Unreachable::Halted)));
    }
}
