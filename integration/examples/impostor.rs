//! A keeper that has been taken over, in a VM's unit in place of the true one: it speaks to the supervisor as its
//! environment's `LIE` says. `integration/tests/host/impostor.rs` names the lies and looks at what becomes of them.
#![allow(clippy::unwrap_used, reason = "whatever fails here fails a test")]
#![allow(clippy::infinite_loop, reason = "it lies until it is killed")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use banger_schemas::codec::{MAX_MESSAGE, encode};
use banger_schemas::keeper::{Event, Exit, ExitCause, Hello, Phase, Request, Status};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, MsgFlags, accept, recv, recvmsg, send, sendmsg};

/// Packets that are sent without being asked for.
const FLOOD: u32 = 1_000_000;

fn main() {
    let lie = std::env::var("LIE").unwrap();
    let listener = listener();
    // Connection upon connection, each in a thread: a true keeper serves many at once.
    loop {
        let fd = accept(listener.as_raw_fd()).unwrap();
        let lie = lie.clone();
        std::thread::spawn(move || Peer(owned(fd)).serve(&lie));
    }
}

/// sd_listen_fds(3): the one socket of the unit.
fn listener() -> OwnedFd {
    owned(3)
}

#[allow(unsafe_code, reason = "descriptors that systemd and accept(2) hand over by number")]
fn owned(number: i32) -> OwnedFd {
    // SAFETY: each number is open, and taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

struct Peer(OwnedFd);

impl Peer {
    /// A packet; nobody there is the end of the thread, not of the process.
    fn packet(&self, bytes: &[u8]) -> Option<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).ok().map(drop)
    }

    fn say(&self, event: &Event) -> Option<()> {
        self.packet(&encode(event).unwrap())
    }

    fn hand(&self, event: &Event, fds: &[BorrowedFd<'_>]) -> Option<()> {
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let bytes = encode(event).unwrap();
        let iov = [std::io::IoSlice::new(&bytes)];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(self.0.as_raw_fd(), &iov, &rights, MsgFlags::MSG_NOSIGNAL, None).ok().map(drop)
    }

    fn phase(&self, generation: u32, phase: Phase) -> Option<()> {
        self.say(&Event::Status(Status { generation: generation.into(), phase, vmm_pid: Some(1) }))
    }

    /// What is asked; the descriptors that come along are closed.
    fn hear(&self) -> Option<Request> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut control = cmsg_space!([i32; 16]);
        let mut iov = [std::io::IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let heard = recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut control), flags).ok()?;
        for message in heard.cmsgs().ok()? {
            if let nix::sys::socket::ControlMessageOwned::ScmRights(raw) = message {
                raw.into_iter().for_each(|number| drop(owned(number)));
            }
        }
        let length = heard.bytes;
        banger_schemas::codec::decode(&bytes[..length]).ok()
    }

    fn serve(&self, lie: &str) -> Option<()> {
        let mut hello = [0; 64];
        recv(self.0.as_raw_fd(), &mut hello, MsgFlags::empty()).ok()?;
        match lie {
            "no-hello" => loop {
                std::thread::park();
            },
            "garbage-hello" => return self.packet(&[0xff; 64]),
            "huge-hello" => return self.packet(&vec![0; 150_000]),
            "version-of-tomorrow" => return self.packet(&encode(&Hello { oldest: 900, newest: 999 }).unwrap()),
            _ => self.packet(&encode(&Hello::default()).unwrap())?,
        }
        loop {
            let request = self.hear()?;
            self.answer(lie, &request)?;
        }
    }

    fn answer(&self, lie: &str, request: &Request) -> Option<()> {
        match (lie, request) {
            ("no-answer", _) => loop {
                std::thread::park();
            },
            ("half-answers", _) => {
                let whole = encode(&Event::Failed("a sentence that is not said to its end".repeat(50))).unwrap();
                self.packet(&whole[..whole.len() / 2])
            }
            ("endless-sentences", _) => self.say(&Event::Failed("\x1b[2J lies ".repeat(9_000))),
            ("endless-answers", _) => (0..FLOOD).try_for_each(|_| self.say(&Event::Done)),
            ("hangs-up", Request::Watch) => None,
            ("flood", Request::Watch) => (0..FLOOD).try_for_each(|n| self.phase(n, Phase::Booting)),
            ("changes-its-mind", Request::Watch) => {
                (0..FLOOD).try_for_each(|n| self.phase(n, if n % 2 == 0 { Phase::Agent } else { Phase::Booting }))
            }
            ("dies-endlessly", Request::Watch) => (0..FLOOD).try_for_each(|n| {
                let message = "why ".repeat(10_000);
                self.phase(n, Phase::Exited(Exit { cause: ExitCause::Status(0), message }))
            }),
            ("other-descriptors", Request::Watch) => self.phase(1, Phase::Agent),
            ("other-descriptors", Request::Open | Request::Console { .. }) => {
                let null = File::open("/dev/zero").unwrap();
                self.hand(&Event::Stream, &[null.as_fd()])
            }
            ("too-many-descriptors", Request::Watch) => self.phase(1, Phase::Agent),
            ("too-many-descriptors", _) => {
                let null = File::open("/dev/null").unwrap();
                self.hand(&Event::Stream, &[null.as_fd(); 250])
            }
            ("lying-agent", Request::Watch) => self.phase(1, Phase::Agent),
            ("lying-agent", Request::Open) => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                std::thread::spawn(move || {
                    let mut ours = ours;
                    // A frame that never ends, then one of four gigabytes.
                    let _ = ours.write_all(&[0, 0, 1, 0]);
                    while ours.write_all(&[0xff; 4096]).is_ok() {}
                });
                self.hand(&Event::Stream, &[theirs.as_fd()])
            }
            (_, Request::Watch) => self.phase(1, Phase::Booting),
            _ => self.say(&Event::Done),
        }
    }
}
