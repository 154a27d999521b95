//! A VM's keeper: found again by its socket, spoken to in packets.
//!
//! The socket is named through its folder's descriptor, so no path is too long for it. What a keeper says is parsed with
//! the bounds of `schemas`, and every wait for it has a deadline.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_bus::dirs::private_folder;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::io::packet::{Packet, PacketSocket};
use banger_schemas::keeper::{Event, Hello, Launch, Origin, Request, Status};

use super::runner::Runner;
use crate::guest::sentence;
use crate::templates::Guest;

/// A keeper answers at once, unless it or the machine is in trouble.
const ANSWER: Duration = Duration::from_secs(10);
/// The last of the console, when the VMM has ended.
const CONSOLE: &str = "console.log";

/// Where keepers are, and what each leaves behind.
#[derive(Debug, Clone)]
pub(crate) struct Keepers {
    folder: PathBuf,
    pub(crate) runner: Arc<dyn Runner>,
}

/// No keeper serves the socket: it has ended. Any other failure proves nothing.
fn no_keeper(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::new(Kind::Gone, "the VM's keeper has ended"),
        _ => silent(error),
    }
}

fn silent(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("the VM's keeper does not answer: {error}"))
}

impl Keepers {
    /// `folder`: the state of all VMs.
    pub(crate) fn new(folder: PathBuf, runner: Arc<dyn Runner>) -> Result<Self> {
        private_folder(&folder)?;
        Ok(Keepers { folder, runner })
    }

    fn home(&self, vm: &VmId) -> PathBuf {
        self.folder.join(vm.as_str())
    }

    /// Has the keeper launch the VMM, with a memory that was brought if there is one.
    pub(crate) async fn launch(
        &self,
        vm: &VmId,
        launch: Launch,
        guest: Option<Guest>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let launch = Box::new(launch);
        let request = match guest {
            Some(guest) => {
                if !guest.console.is_empty() {
                    // Its keeper, which was handed this file, goes on from there.
                    let written = std::fs::write(self.home(vm).join(CONSOLE), guest.console);
                    written.map_err(|e| Error::internal(format!("no file for the console: {e}")))?;
                }
                fds.extend(guest.fds);
                Request::LaunchWith(launch, guest.memory)
            }
            None => Request::Launch(launch),
        };
        self.connect(vm).await?.ask(&request, fds).await.map(drop)
    }

    /// The keeper of a VM; `Gone` when there is none, another error when there may be one.
    pub(crate) async fn connect(&self, vm: &VmId) -> Result<Keeper> {
        let (folder, name) = self.runner.socket(vm);
        // Only to name the socket: the folder need not be ours to read.
        let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(folder).map_err(no_keeper)?;
        let socket = PacketSocket::connect(&through(&folder, &name)).map_err(no_keeper)?;
        let keeper = Keeper { socket };
        keeper.greet().await?;
        Ok(keeper)
    }

    /// A fresh file for the last of the console.
    pub(crate) fn console_file(&self, vm: &VmId) -> Result<OwnedFd> {
        let home = self.home(vm);
        private_folder(&home)?;
        let file = fresh_file(&home.join(CONSOLE));
        file.map(OwnedFd::from).map_err(|e| Error::internal(format!("no file for the console: {e}")))
    }

    /// The stored console of a VM whose keeper has ended.
    pub(crate) fn stored_console(&self, vm: &VmId) -> Result<OwnedFd> {
        let path = self.home(vm).join(CONSOLE);
        File::open(&path)
            .map(OwnedFd::from)
            .map_err(|e| Error::new(Kind::NotFound, format!("nothing is kept of this VM's console: {e}")))
    }

    /// Removes the VM's folder; none is fine too.
    pub(crate) fn forget(&self, vm: &VmId) -> Result<()> {
        match std::fs::remove_dir_all(self.home(vm)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::internal(format!("cannot remove {}: {e}", self.home(vm).display())))
            }
            _ => Ok(()),
        }
    }

    /// Folders of VMs, as they are on the disk.
    pub(crate) fn folders(&self) -> Vec<VmId> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
    }
}

pub(super) fn fresh_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).read(true).write(true).truncate(true).mode(0o600).open(path)
}

/// A name in an open folder, short whatever the folder's path is.
pub(super) fn through(folder: &File, name: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

/// A connection to a keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: PacketSocket,
}

impl Keeper {
    async fn greet(&self) -> Result<()> {
        let greeting = async {
            self.socket.send(&Hello::default(), &[]).await?;
            self.socket.expect::<Hello>().await
        };
        let theirs = timely(greeting).await?.message;
        match Hello::default().common(theirs) {
            Some(_) => Ok(()),
            None => Err(Error::new(
                Kind::NotSupported,
                format!(
                    "this VM's keeper speaks versions {} to {}, and this banger another: stop the VM with the banger that started it",
                    theirs.oldest, theirs.newest
                ),
            )),
        }
    }

    /// Asks, and takes the answer with its descriptors. Those that are sent are the keeper's alone from then on.
    pub(crate) async fn ask(&self, request: &Request, fds: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
        match self.exchange(request, fds).await? {
            Packet { message: Event::Done | Event::Stream, fds } => Ok(fds),
            packet => Err(unexpected(packet.message)),
        }
    }

    /// Freezes the guest and ends its VMM; what the guest has taken from its host.
    pub(crate) async fn freeze(&self) -> Result<Origin> {
        match self.exchange(&Request::Freeze, Vec::new()).await?.message {
            Event::Frozen(origin) => Ok(origin),
            other => Err(unexpected(other)),
        }
    }

    async fn exchange(&self, request: &Request, fds: Vec<OwnedFd>) -> Result<Packet<Event>> {
        let exchange = async {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            self.socket.send(request, &borrowed).await?;
            drop(fds);
            self.socket.expect::<Event>().await
        };
        timely(exchange).await
    }

    /// Asks for one stream.
    pub(crate) async fn stream(&self, request: &Request) -> Result<OwnedFd> {
        let mut fds = self.ask(request, Vec::new()).await?;
        match (fds.pop(), fds.is_empty()) {
            (Some(fd), true) => Ok(fd),
            _ => Err(Error::internal("the VM's keeper sent no stream")),
        }
    }

    /// Begins to watch; then each call gives the next status, `None` when the keeper is gone.
    pub(crate) async fn watch(&self) -> Result<()> {
        timely(self.socket.send(&Request::Watch, &[])).await
    }

    pub(crate) async fn next_status(&self) -> Result<Option<Status>> {
        match self.socket.receive::<Event>().await.map_err(silent)? {
            None => Ok(None),
            Some(packet) => match packet.message {
                Event::Status(status) => Ok(Some(status)),
                _ => Err(Error::internal("the VM's keeper answered something else")),
            },
        }
    }
}

fn unexpected(event: Event) -> Error {
    match event {
        Event::Failed(message) => Error::new(Kind::Guest, sentence(&message)),
        _ => Error::internal("the VM's keeper answered something else"),
    }
}

async fn timely<T>(exchange: impl Future<Output = std::io::Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER, exchange).await {
        Ok(result) => result.map_err(silent),
        Err(_) => Err(Error::new(Kind::Timeout, format!("the VM's keeper did not answer in {} s", ANSWER.as_secs()))),
    }
}
