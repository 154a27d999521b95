//! How far the system has come. systemd says itself when it is up: no process, no polling.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::time::Duration;

use banger_schemas::guest::System;
use tokio::net::UnixDatagram;
use tokio::sync::watch;

use super::{Flavor, Init};
use crate::log;

/// As in the environment that PID 1 gives to the init.
const NOTIFY_SOCKET: &str = "/run/banger/notify";
/// No start takes longer, and nobody waits longer for one that never ends.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// The image's init, seen from outside.
pub(crate) struct Progress {
    state: watch::Sender<System>,
    init: RefCell<Option<Init>>,
    socket: RefCell<Option<UnixDatagram>>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { state: watch::Sender::new(System::None), init: RefCell::default(), socket: RefCell::default() }
    }
}

impl Progress {
    pub(crate) fn state(&self) -> System {
        *self.state.borrow()
    }

    /// The init that runs as PID 1, if one does.
    pub(crate) fn init(&self) -> Option<Init> {
        self.init.borrow().clone()
    }

    /// Waits until the init has finished its start; does not wait where there is none.
    pub(crate) async fn up(&self) {
        let mut state = self.state.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = state.wait_for(|state| *state != System::Starting).await;
    }

    /// Opens the socket on which systemd will say `READY=1` (systemd(1), `$NOTIFY_SOCKET`).
    pub(super) fn listen(&self) -> io::Result<()> {
        fs::create_dir_all("/run/banger")?;
        *self.socket.borrow_mut() = Some(UnixDatagram::bind(NOTIFY_SOCKET)?);
        Ok(())
    }

    /// The init runs. Of one that is not systemd nothing more is known, so it counts as up.
    pub(super) fn started(&self, init: &Init) {
        *self.init.borrow_mut() = Some(init.clone());
        let socket = self.socket.borrow_mut().take();
        let (Flavor::Systemd, Some(socket)) = (init.flavor, socket) else {
            self.state.send_replace(System::Up);
            return;
        };
        self.state.send_replace(System::Starting);
        let state = self.state.clone();
        tokio::task::spawn_local(async move {
            match tokio::time::timeout(START_DEADLINE, ready(&socket)).await {
                Ok(Ok(())) => log::info("systemd is up"),
                Ok(Err(error)) => log::error(&format!("systemd's word is lost: {error}")),
                Err(_) => log::error("systemd did not finish its start in 90 seconds; commands wait no longer"),
            }
            state.send_replace(System::Up);
        });
    }
}

async fn ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message).await?;
        if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_ready_is_ready() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        for message in ["STATUS=half", "XREADY=1", "READY=10", "READY=1\nSTATUS=Startup finished."] {
            theirs.send(message.as_bytes()).await.unwrap();
        }
        ready(&ours).await.unwrap();
        assert!(ours.try_recv(&mut [0; 64]).is_err(), "everything before READY=1 was read, and nothing after it");
    }

    #[tokio::test]
    async fn without_an_init_nobody_waits() {
        Progress::default().up().await;
    }
}
