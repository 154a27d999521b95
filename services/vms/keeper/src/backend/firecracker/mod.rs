//! Firecracker: told what to run over its API, ended by being killed, since it has nothing in hand that must be put away.
//!
//! Its own seccomp filters stay on.

mod api;
mod requests;
mod vsock;

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_schemas::keeper::Launch;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, OptionFuture};
use nix::libc;
use tempfile::TempDir;
use tokio::time::timeout;

use super::process::{self, Surroundings};
use super::{Agent, Backend, Files, Machine, pair};
use crate::tap::{self, Offer};
use api::Api;
use requests::{Places, Request, requests};
pub use vsock::Vsock;

/// For all of a start, from the process to the answer that the guest runs: less than a supervisor waits for it.
const PATIENCE: Duration = Duration::from_secs(8);

/// Firecracker.
#[derive(Debug)]
pub struct Firecracker;

impl Backend for Firecracker {
    fn launch<'a>(&'a self, launch: &'a Launch, files: Files) -> LocalBoxFuture<'a, io::Result<Machine>> {
        start(launch, files).boxed_local()
    }
}

async fn start(launch: &Launch, files: Files) -> io::Result<Machine> {
    if files.memory.is_some() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "its guests are not frozen yet"));
    }
    // Two sockets are in it for the time of the start; then nothing of the VM is found by a name.
    let folder = private_folder()?;
    let (offer, gate) = files.tap.map(tap::offer).transpose()?.unzip();
    let places = Places {
        kernel: files.kernel.as_raw_fd(),
        initramfs: files.initramfs.as_raw_fd(),
        image: files.image.as_raw_fd(),
        system: files.system.as_raw_fd(),
        work: files.work.as_raw_fd(),
    };
    let passed = vec![files.kernel, files.initramfs, files.image, files.system, files.work];
    let (console, stdout) = pair()?;
    let surroundings = Surroundings { folder: folder.path(), stdout: Some(stdout), gate };
    let spawned = process::spawn(&launch.vmm, &arguments(), passed, surroundings);
    let (mut child, messages) = spawned.map_err(not_alone)?;
    let requests = requests(launch, &places);
    let told = tokio::select! {
        error = no_tap(offer) => Err(error),
        told = timeout(PATIENCE, tell(folder.path(), &requests)) => {
            told.unwrap_or_else(|_| Err(io::Error::other(format!("it did not start in {} s", PATIENCE.as_secs()))))
        }
        status = child.wait() => status.and_then(|status| Err(io::Error::other(format!("it ended with {status}")))),
    };
    match told {
        Ok(vsock) => Ok(Machine { child, control: None, agent: Agent::Vsock(vsock), console, messages }),
        Err(error) => Err(process::failed(child, messages, error).await),
    }
}

/// `$RUNTIME_DIRECTORY` is the unit's own (systemd.exec(5)); elsewhere nobody but us may enter what we make.
fn private_folder() -> io::Result<TempDir> {
    let parent = std::env::var_os("RUNTIME_DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("banger-vm-").permissions(Permissions::from_mode(0o700)).tempdir_in(parent)
}

/// The console has stdout for itself; the log goes where errors go.
fn arguments() -> Vec<String> {
    let words = ["--api-sock", api::SOCKET, "--log-path", "/proc/self/fd/2", "--level", "Error"];
    words.map(str::to_owned).to_vec()
}

/// The kernel lets one program answer for a process's system calls.
fn not_alone(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBUSY) => io::Error::other(
            "whoever contains it answers for its system calls (a container manager, most likely), so it cannot be given its network device: take another backend, or no network",
        ),
        _ => error,
    }
}

/// Hands the TAP over, if there is one; comes back only if that fails.
async fn no_tap(offer: Option<Offer>) -> io::Error {
    if let Some(Err(error)) = OptionFuture::from(offer.map(Offer::hand_over)).await {
        return io::Error::new(error.kind(), format!("its network device cannot be handed over: {error}"));
    }
    std::future::pending().await
}

async fn tell(folder: &Path, requests: &[Request]) -> io::Result<Vsock> {
    let mut api = Api::of(&File::open(folder)?).await?;
    for request in requests {
        api.put(request).await?;
    }
    Vsock::at(&folder.join(requests::VSOCK))
}
