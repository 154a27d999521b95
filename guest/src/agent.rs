//! The agent process: gets the guest ready and serves the host.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use crate::guest::Guest;
use crate::init::Door;
use crate::start::{self, Start};
use crate::transport::port::{self, Port};
use crate::transport::vsock;
use crate::{channel, log, sys};

/// Between two attempts to open a port that cannot be opened.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the VM ends.
pub(crate) fn run(door: UnixStream) -> ExitCode {
    sys::heap::keep_freed_memory();
    if let Err(errno) = survivable().thread_block() {
        log::error(&format!("a stray signal may end the agent: {}", errno.desc()));
    }
    // As early as the signals are blocked: nothing else here is worth waiting for.
    let start = start::begin();
    if let Err(errno) = sys::title::survive_init() {
        log::error(&format!("cannot take a name that init spares: {}", errno.desc()));
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        log::error(&format!("the out-of-memory killer may take the agent: {error}"));
    }
    if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, sys::process::MAX_FILES, sys::process::MAX_FILES) {
        log::error(&format!("few descriptors: {}", errno.desc()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let result = runtime.and_then(|runtime| runtime.block_on(serve(door, start?)));
    if let Err(error) = result {
        log::error(&format!("the agent cannot go on: {error}"));
    }
    ExitCode::FAILURE
}

/// What a root in the guest sends to everybody (`kill -1`, an init that stops) is not meant for the agent.
fn survivable() -> SigSet {
    use Signal::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    [SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().collect()
}

async fn serve(door: UnixStream, mut start: Start) -> io::Result<()> {
    let guest = Rc::new(Guest::new(start.root, start.loaded.clone(), Door::new(door)?));
    let by_vsock = guest.clone();
    tokio::task::spawn_local(async move {
        // An error is an end too: the sender is gone after its work.
        let _ = start.loaded.wait_for(|loaded| *loaded).await;
        if let Err(error) = vsock::serve(by_vsock).await {
            log::info(&format!("no vsock: {error}"));
        }
    });
    let path = port::find().await;
    loop {
        let Err(error) = serve_port(&path, &guest).await;
        log::error(&format!("{}: {error}", path.display()));
        tokio::time::sleep(RETRY).await;
    }
}

async fn serve_port(path: &Path, guest: &Rc<Guest>) -> io::Result<Infallible> {
    let port = Port::open(path)?;
    loop {
        port.connected().await?;
        channel::serve(port.clone(), guest).await;
    }
}
