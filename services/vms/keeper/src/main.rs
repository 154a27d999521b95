//! `banger-keeper`: serves the control socket it inherits, see sd_listen_fds(3), and keeps the VM it is told to.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use banger_keeper::inherited_listener;
use banger_keeper::server::{Peers, serve};
use banger_schemas::io::packet::PacketListener;

/// How long a keeper that nobody launches anything in stays.
const PATIENCE: Duration = Duration::from_secs(10);
/// Another such time, in milliseconds, for tests.
const PATIENCE_VARIABLE: &str = "BANGER_KEEPER_PATIENCE_MS";

fn main() -> ExitCode {
    // Nobody else's words: what a crate says about the bytes of a guest, the guest could repeat for ever.
    let filter = tracing_subscriber::EnvFilter::new("banger_keeper=info");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).without_time().init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot keep a VM");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let listener = inherited_listener()?;
    let peers = Peers::of(&listener);
    let patience = std::env::var(PATIENCE_VARIABLE).ok().and_then(|ms| ms.parse().ok());
    let patience = patience.map_or(PATIENCE, Duration::from_millis);
    // One thread: the VMM is bound to the life of the thread that starts it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async { serve(PacketListener::from_fd(listener)?, peers, patience).await })
}
