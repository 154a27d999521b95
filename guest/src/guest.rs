//! What the agent knows of its VM: who it is, what runs in it, and how far its system has come.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use banger_schemas::guest::{Identity, Ready, Reply, Status};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Mutex, oneshot, watch};

use crate::exec::Running;
use crate::init::{Door, Progress};
use crate::root::{self, Root, RootError};
use crate::{identity, shutdown};

/// From nobody to somebody, in one direction.
enum Who {
    /// The disks are being mounted; the host has not said yet whose they are.
    Anonymous(oneshot::Receiver<Result<Root, RootError>>),
    /// The disks could not be mounted, for this reason, and never will be.
    Broken(String),
    /// The disks are mounted and nothing more is needed to become somebody: here templates are frozen.
    Prepared(Arc<Root>),
    /// This VM.
    Known { vm_id: String, ready: Ready, root: Arc<Root> },
}

/// What the guest does for the host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Anonymous,
    Serving,
    Stopping,
}

pub(crate) struct Guest {
    who: Mutex<Who>,
    loaded: watch::Receiver<bool>,
    phase: Cell<Phase>,
    door: Door,
    pub(crate) progress: Progress,
    pub(crate) running: Running,
    pub(crate) generation: Generation,
}

impl Guest {
    /// `loaded`: whether all drivers are.
    pub(crate) fn new(
        assembling: oneshot::Receiver<Result<Root, RootError>>,
        loaded: watch::Receiver<bool>,
        door: Door,
    ) -> Self {
        Guest {
            who: Mutex::new(Who::Anonymous(assembling)),
            loaded,
            phase: Cell::new(Phase::Anonymous),
            door,
            progress: Progress::default(),
            running: Running::default(),
            generation: Generation::default(),
        }
    }

    /// Becomes the VM that the host names. One identity at a time: a second one waits here for the first.
    pub(crate) async fn identify(&self, identity: &Identity) -> Reply {
        let mut who = self.who.lock().await;
        let begun = match &*who {
            Who::Anonymous(_) | Who::Prepared(_) => match identity::begin(identity) {
                Ok(begun) => Some(begun),
                Err(refusal) => return Reply::Refused(refusal),
            },
            Who::Broken(_) | Who::Known { .. } => None,
        };
        who.settle().await;
        match (&*who, begun) {
            (Who::Prepared(root), Some(begun)) => {
                let root = root.clone();
                match identity::become_vm(identity, begun, &root, &self.door, &self.progress).await {
                    Ok(ready) => {
                        *who = Who::Known { vm_id: identity.vm_id.clone(), ready: ready.clone(), root };
                        self.phase.set(Phase::Serving);
                        Reply::Ready(ready)
                    }
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            (Who::Known { vm_id, ready, .. }, _) if *vm_id == identity.vm_id => {
                // After a pause the clock is behind, and that is why the host repeats itself.
                identity::refresh(identity);
                Reply::Ready(ready.clone())
            }
            (Who::Known { vm_id, .. }, _) => {
                Reply::Refused(format!("this guest is {vm_id} and cannot become {}", identity.vm_id))
            }
            (Who::Broken(reason), _) => Reply::Refused(format!("the guest cannot mount its disks: {reason}")),
            (Who::Anonymous(_) | Who::Prepared(_), _) => Reply::Refused("the guest is not ready".into()),
        }
    }

    /// Why the guest does nothing for the host now, as a sentence, if it does not.
    pub(crate) fn refusal(&self) -> Option<String> {
        match self.phase.get() {
            Phase::Anonymous => Some("the guest has no identity yet".into()),
            Phase::Serving => None,
            Phase::Stopping => Some("the guest is stopping".into()),
        }
    }

    pub(crate) fn has_identity(&self) -> bool {
        self.phase.get() != Phase::Anonymous
    }

    /// How the guest does. Without an identity that is refused.
    pub(crate) async fn status(&self) -> Reply {
        match &*self.who.lock().await {
            Who::Known { ready, .. } => Reply::Status(Status {
                boot_id: ready.boot_id.clone(),
                system: self.progress.state(),
                uptime_ms: uptime_ms(),
            }),
            _ => Reply::Refused("the guest has no identity yet".into()),
        }
    }

    /// Does all that can be done for an identity that is yet to come: disks, drivers, and what a first command reads.
    pub(crate) async fn prepare(&self) -> Reply {
        let mut who = self.who.lock().await;
        who.settle().await;
        match &*who {
            Who::Prepared(_) => {}
            Who::Known { vm_id, .. } => return Reply::Refused(format!("this guest is {vm_id} already")),
            Who::Broken(reason) => return Reply::Refused(format!("the guest cannot mount its disks: {reason}")),
            Who::Anonymous(_) => return Reply::Refused("the guest is not ready".into()),
        }
        // An error is an end too.
        let _ = self.loaded.clone().wait_for(|loaded| *loaded).await;
        identity::prepare().await;
        // What a cold cache costs does not matter; and whoever boots from these disks alone shall find them whole.
        let _ = tokio::task::spawn_blocking(|| {
            root::warm();
            nix::unistd::sync();
        })
        .await;
        Reply::Prepared
    }

    /// Ends the VM. Asked again, it is already ending.
    pub(crate) async fn power_off(&self, grace: Duration) {
        if self.phase.replace(Phase::Stopping) == Phase::Stopping {
            return;
        }
        let root = match &*self.who.lock().await {
            Who::Known { root, .. } => Some(root.clone()),
            _ => None,
        };
        shutdown::power_off(root.as_deref(), self.progress.init(), &self.running, grace).await;
    }
}

impl Who {
    /// Waits until the disks are mounted or cannot be.
    async fn settle(&mut self) {
        if let Who::Anonymous(assembling) = self {
            *self = match assembling.await {
                Ok(Ok(root)) => Who::Prepared(Arc::new(root)),
                Ok(Err(error)) => Who::Broken(error.to_string()),
                Err(_) => Who::Broken("nobody mounts them".into()),
            };
        }
    }
}

fn uptime_ms() -> u64 {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
}

/// The host's connections, counted by the host: those of one generation live side by side, and none with another's.
#[derive(Debug)]
pub(crate) struct Generation(watch::Sender<u32>);

impl Default for Generation {
    fn default() -> Self {
        Generation(watch::Sender::new(0))
    }
}

impl Generation {
    /// A connection of this generation begins, and those of every other one end.
    pub(crate) fn enter(&self, own: u32) -> Entered {
        self.0.send_replace(own);
        Entered { own, current: self.0.subscribe() }
    }
}

#[derive(Debug)]
pub(crate) struct Entered {
    own: u32,
    current: watch::Receiver<u32>,
}

impl Entered {
    /// Waits until a connection of another generation began.
    pub(crate) async fn replaced(mut self) {
        let own = self.own;
        if self.current.wait_for(|current| *current != own).await.is_err() {
            // The guest itself is gone, which it never is while it serves.
            std::future::pending::<()>().await;
        }
    }
}
