//! A keeper under test and a client of it. Both are gone when dropped, with the VMM.

use std::future::Future;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use banger_schemas::io::PacketSocket;
use banger_schemas::keeper::{Event, Exit, Hello, Launch, Phase, Request, Status};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use tokio::net::UnixStream;

pub(crate) const FDS: usize = 5;

pub(crate) struct Keeper {
    pub(crate) process: Child,
    path: PathBuf,
}

impl Keeper {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(env: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("keeper-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_file(&path);
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(64).unwrap()).unwrap();
        // The shell moves the listener to where LISTEN_FDS says it is.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec 3<&0 0</dev/null; exec \"$0\""]).arg(env!("CARGO_BIN_EXE_banger-keeper"));
        command.env("LISTEN_FDS", "1").env_remove("LISTEN_PID").envs(env.iter().copied());
        let process = command.stdin(Stdio::from(listener)).stderr(Stdio::null()).spawn().unwrap();
        Keeper { process, path }
    }

    pub(crate) fn socket(&self) -> PacketSocket {
        PacketSocket::connect(&self.path).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let socket = self.socket();
        socket.send(&Hello::default(), &[]).await.unwrap();
        let hello = soon(socket.expect::<Hello>()).await.unwrap();
        assert_eq!(hello.message, Hello::default());
        Client { socket }
    }

    /// A keeper whose VMM plays this part.
    pub(crate) async fn playing(part: &str) -> (Self, Client) {
        let keeper = Keeper::start();
        let client = keeper.client().await;
        assert_eq!(client.launch(part).await, Event::Done);
        (keeper, client)
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon(async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(crate) struct Client {
    pub(crate) socket: PacketSocket,
}

impl Client {
    pub(crate) async fn ask(&self, request: Request) -> (Event, Vec<OwnedFd>) {
        self.ask_with(request, &[]).await
    }

    pub(crate) async fn ask_with(&self, request: Request, fds: &[BorrowedFd<'_>]) -> (Event, Vec<OwnedFd>) {
        self.socket.send(&request, fds).await.unwrap();
        let answer = soon(self.socket.expect::<Event>()).await.unwrap();
        (answer.message, answer.fds)
    }

    pub(crate) async fn launch(&self, part: &str) -> Event {
        let files = files(part);
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        self.ask_with(Request::Launch(Box::new(launch())), &fds).await.0
    }

    pub(crate) async fn open(&self) -> Result<UnixStream, Event> {
        self.stream(Request::Open).await
    }

    pub(crate) async fn console(&self, follow: bool) -> UnixStream {
        self.stream(Request::Console { follow }).await.unwrap()
    }

    pub(crate) async fn stream(&self, request: Request) -> Result<UnixStream, Event> {
        let (event, mut fds) = self.ask(request).await;
        if event != Event::Stream {
            return Err(event);
        }
        assert_eq!(fds.len(), 1);
        let stream = std::os::unix::net::UnixStream::from(fds.remove(0));
        stream.set_nonblocking(true).unwrap();
        Ok(UnixStream::from_std(stream).unwrap())
    }
}

/// A connection that follows the status.
pub(crate) struct Watcher(Client);

impl Watcher {
    pub(crate) async fn of(keeper: &Keeper) -> Self {
        let client = keeper.client().await;
        client.socket.send(&Request::Watch, &[]).await.unwrap();
        Watcher(client)
    }

    pub(crate) async fn next(&self) -> Status {
        match soon(self.0.socket.expect::<Event>()).await.unwrap().message {
            Event::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn until(&self, wanted: impl Fn(&Phase) -> bool) -> Status {
        loop {
            let status = self.next().await;
            if wanted(&status.phase) {
                return status;
            }
            assert!(!matches!(status.phase, Phase::Exited(_)), "{status:?}");
        }
    }

    pub(crate) async fn agent(&self) {
        self.until(|phase| *phase == Phase::Agent).await;
    }

    pub(crate) async fn exit(&self) -> Exit {
        match self.until(|phase| matches!(phase, Phase::Exited(_))).await.phase {
            Phase::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }
}

/// The VMM of these tests.
pub(crate) fn stand_in() -> PathBuf {
    let vmm = Path::new(env!("CARGO_BIN_EXE_banger-keeper")).with_file_name("examples").join(crate::STAND_IN);
    assert!(vmm.exists(), "build the stand-in VMM first: cargo build -p banger-keeper --examples");
    vmm
}

pub(crate) fn launch() -> Launch {
    Launch {
        backend: crate::BACKEND,
        vmm: stand_in().to_str().unwrap().to_owned(),
        vcpus: 1,
        memory_mib: 64,
        mac: None,
        tap: false,
        leased: false,
        keeps_console: false,
        volatile: false,
    }
}

/// The descriptors of a launch: the part as the kernel, and nothing in the rest.
pub(crate) fn files(part: &str) -> Vec<OwnedFd> {
    let file = |text: &str| {
        let mut file = std::fs::File::from(memfd_create(c"part", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        OwnedFd::from(file)
    };
    std::iter::once(file(part)).chain((1..FDS).map(|_| file(""))).collect()
}

/// Whether the process is gone, or waits for nobody but its parent.
pub(crate) fn is_dead(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("takes too long")
}

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
