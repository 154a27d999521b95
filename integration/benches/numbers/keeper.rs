//! Talking to a keeper as its supervisor does; and a keeper of the bench's own.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use banger_integration::Banger;
use banger_schemas::io::PacketSocket;
use banger_schemas::io::packet::listen_at;
use banger_schemas::keeper::{Event, Hello, Launch, Phase, Request};
use tokio::net::UnixStream;

use crate::client::stream_of;

/// A connection that has said hello.
pub(crate) struct Connection {
    socket: PacketSocket,
    /// As far as the machine was when it was last heard of.
    reached: Cell<u8>,
}

impl Connection {
    /// `None`: nobody listens yet.
    pub(crate) async fn open(socket: &Path) -> Option<Self> {
        // A name below an open folder is short enough for a socket's address.
        let folder = std::fs::File::open(socket.parent()?).ok()?;
        let short = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), socket.file_name()?.to_str()?);
        let socket = PacketSocket::connect(Path::new(&short)).ok()?;
        socket.send(&Hello::default(), &[]).await.unwrap();
        assert_eq!(socket.expect::<Hello>().await.unwrap().message, Hello::default());
        Some(Connection { socket, reached: Cell::new(0) })
    }

    pub(crate) async fn ask(&self, request: &Request, fds: &[OwnedFd]) -> Vec<OwnedFd> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.socket.send(request, &fds).await.unwrap();
        let answer = self.socket.expect::<Event>().await.unwrap();
        assert!(matches!(answer.message, Event::Done | Event::Stream), "{:?}", answer.message);
        answer.fds
    }

    /// A stream to the agent.
    pub(crate) async fn stream(&self) -> UnixStream {
        stream_of(self.ask(&Request::Open, &[]).await.remove(0))
    }

    /// From now on this connection only tells the status.
    pub(crate) async fn watch(&self) {
        self.socket.send(&Request::Watch, &[]).await.unwrap();
    }

    /// Waits until the machine has come as far as this.
    pub(crate) async fn until(&self, wanted: &Phase) {
        // One that goes on from a template takes several steps at once.
        while self.reached.get() < rank(wanted) {
            match self.socket.expect::<Event>().await.unwrap().message {
                Event::Status(status) => self.reached.set(rank(&status.phase)),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn rank(phase: &Phase) -> u8 {
    match phase {
        Phase::Idle => 0,
        Phase::Booting => 1,
        Phase::Kernel => 2,
        Phase::Agent => 3,
        Phase::Exited(exit) => panic!("the machine ended: {exit:?}"),
    }
}

/// A keeper that no supervisor knows of. It and its machine end with this.
pub(crate) struct Keeper {
    process: Child,
    socket: PathBuf,
}

impl Keeper {
    pub(crate) fn start(banger: &Banger) -> Self {
        let installed = PathBuf::from(banger.command(["--version"]).get_program());
        let program = installed.parent().unwrap().join("../lib/banger/banger-keeper");
        let socket = banger.home().join("bench-keeper.sock");
        let listener = listen_at(&socket).unwrap();
        // The shell moves the listener to where LISTEN_FDS says it is.
        let process = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0 0</dev/null; exec \"$0\""])
            .arg(program)
            .env("LISTEN_FDS", "1")
            .stdin(Stdio::from(listener))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Keeper { process, socket }
    }

    pub(crate) async fn launch(&self, launch: Launch, fds: &[OwnedFd]) -> Connection {
        self.ask_for(&Request::Launch(Box::new(launch)), fds).await
    }

    /// A machine, as soon as its agent is there.
    pub(crate) async fn ask_for(&self, launch: &Request, fds: &[OwnedFd]) -> Connection {
        let keeper = Connection::open(&self.socket).await.unwrap();
        keeper.ask(launch, fds).await;
        let watcher = Connection::open(&self.socket).await.unwrap();
        watcher.watch().await;
        watcher.until(&Phase::Agent).await;
        keeper
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The VMM dies with it.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_file(&self.socket));
    }
}
