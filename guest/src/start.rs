//! What takes longest at a start, done beside everything else: one thread loads modules, another one mounts each disk
//! as soon as it can, and the agent meanwhile greets the host.

use std::io;
use std::path::Path;
use std::thread;

use tokio::sync::{oneshot, watch};

use crate::log;
use crate::modules::Modules;
use crate::root::{self, Root, RootError};

/// Where the initramfs has the modules.
const MODULES: &str = "/modules";

/// What becomes of a start.
pub(crate) struct Start {
    /// True, or gone, when there is nothing left to load.
    pub(crate) loaded: watch::Receiver<bool>,
    pub(crate) root: oneshot::Receiver<Result<Root, RootError>>,
}

/// Begins. The threads inherit the caller's signal mask.
pub(crate) fn begin() -> io::Result<Start> {
    let modules = Modules::find(Path::new(MODULES));
    let modules = modules.inspect_err(|error| log::error(&format!("no kernel modules: {MODULES}: {error}"))).ok();
    let pending = modules.as_ref().map(Modules::pending).unwrap_or_default();
    let (tell_loaded, loaded) = watch::channel(false);
    let (tell_root, root) = oneshot::channel();
    // Nobody left to tell means that the agent is at its end.
    spawn("modules", move || {
        modules.into_iter().for_each(Modules::load_all);
        let _ = tell_loaded.send(true);
    })?;
    spawn("disks", move || drop(tell_root.send(root::assemble(&pending))))?;
    Ok(Start { loaded, root })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}
