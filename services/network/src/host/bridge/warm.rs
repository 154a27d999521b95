//! TAPs made beforehand. They are held open and not kept, so they go with the service and need no recovery.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::ports;
use crate::host::Error;
use crate::host::links::Links;

/// TAPs that wait for a VM, ports of the bridge already, and down.
#[derive(Debug)]
pub(super) struct Warm {
    bridge: String,
    size: usize,
    taps: Mutex<Vec<(OwnedFd, String)>>,
    /// Names are not used twice, since a link may take a moment to go.
    made: AtomicU32,
    filling: tokio::sync::Mutex<()>,
}

impl Warm {
    pub(super) fn new(bridge: String, size: usize) -> Self {
        Warm { bridge, size, taps: Mutex::default(), made: AtomicU32::new(0), filling: tokio::sync::Mutex::default() }
    }

    /// One of them, with the name that it has.
    pub(super) fn take(&self) -> Option<(OwnedFd, String)> {
        self.lock().pop()
    }

    /// Lets all go.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Makes as many as are missing, while others work.
    pub(super) fn fill(self: &Arc<Self>) {
        let me = self.clone();
        tokio::spawn(async move {
            let _turn = me.filling.lock().await;
            while me.lock().len() < me.size {
                match me.make().await {
                    Ok(tap) => me.lock().push(tap),
                    Err(error) => return tracing::warn!(%error, "no TAP can be made beforehand"),
                }
            }
        });
    }

    async fn make(&self) -> Result<(OwnedFd, String), Error> {
        let links = Links::open()?;
        loop {
            let name = format!("bg-warm{}", self.made.fetch_add(1, Ordering::Relaxed) % 10_000);
            if links.get(&name).await?.is_none() {
                let tap = ports::make(&links, &name, &self.bridge).await?;
                return Ok((tap, name));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(OwnedFd, String)>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
