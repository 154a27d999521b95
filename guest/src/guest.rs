//! What the agent knows of its VM: who it is, what runs in it, and how far its system has come.

use std::time::Duration;

use banger_schemas::guest::{Identity, Ready, Reply, Status};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::exec::Running;
use crate::identity;
use crate::init::{Door, Progress};
use crate::root::{Root, RootError};

/// From nobody to somebody, in one direction.
enum Who {
    /// The disks are being mounted; the host has not said yet whose they are.
    Anonymous(JoinHandle<Result<Root, RootError>>),
    /// The disks could not be mounted, for this reason, and never will be.
    Broken(String),
    /// The disks are mounted and nothing more is needed to become somebody.
    Prepared(Root),
    /// This VM.
    Known { vm_id: String, ready: Ready, root: Root },
}

pub(crate) struct Guest {
    who: Mutex<Who>,
    door: Door,
    pub(crate) progress: Progress,
    pub(crate) running: Running,
    pub(crate) generation: Generation,
}

impl Guest {
    pub(crate) fn new(assembling: JoinHandle<Result<Root, RootError>>, door: Door) -> Self {
        Guest {
            who: Mutex::new(Who::Anonymous(assembling)),
            door,
            progress: Progress::default(),
            running: Running::default(),
            generation: Generation::default(),
        }
    }

    /// Becomes the VM that the host names. One identity at a time: a second one waits here for the first.
    pub(crate) async fn identify(&self, identity: &Identity) -> Reply {
        let mut who = self.who.lock().await;
        if let Who::Anonymous(assembling) = &mut *who {
            *who = match assembling.await {
                Ok(Ok(root)) => Who::Prepared(root),
                Ok(Err(error)) => Who::Broken(error.to_string()),
                Err(error) => Who::Broken(error.to_string()),
            };
        }
        match std::mem::replace(&mut *who, Who::Broken("interrupted while it took its identity".into())) {
            Who::Prepared(root) => match identity::become_vm(identity, &root, &self.door, &self.progress).await {
                Ok(ready) => {
                    *who = Who::Known { vm_id: identity.vm_id.clone(), ready: ready.clone(), root };
                    Reply::Ready(ready)
                }
                Err(refusal) => {
                    *who = Who::Prepared(root);
                    Reply::Refused(refusal)
                }
            },
            Who::Known { vm_id, ready, root } => {
                let reply = if vm_id == identity.vm_id {
                    // After a pause the clock is behind, and that is why the host repeats itself.
                    identity::refresh(identity);
                    Reply::Ready(ready.clone())
                } else {
                    Reply::Refused(format!("this guest is {vm_id} and cannot become {}", identity.vm_id))
                };
                *who = Who::Known { vm_id, ready, root };
                reply
            }
            Who::Broken(reason) => {
                let reply = Reply::Refused(format!("the guest cannot mount its disks: {reason}"));
                *who = Who::Broken(reason);
                reply
            }
            still @ Who::Anonymous(_) => {
                *who = still;
                Reply::Refused("the guest is not ready".into())
            }
        }
    }

    /// Whether the guest has its identity, without which it does nothing for anybody.
    pub(crate) fn is_known(&self) -> bool {
        // Held only while an identity is being taken: then it is not known yet.
        self.who.try_lock().is_ok_and(|who| matches!(*who, Who::Known { .. }))
    }

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

    /// Ends the VM.
    pub(crate) async fn power_off(&self, grace: Duration) {
        let who = self.who.lock().await;
        let root = if let Who::Known { root, .. } = &*who { Some(root) } else { None };
        crate::shutdown::power_off(root, self.progress.init(), &self.running, grace).await;
    }
}

fn uptime_ms() -> u64 {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
}

/// The host's connections, counted by the host: those of one generation live side by side, and none with another's.
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

pub(crate) struct Entered {
    own: u32,
    current: watch::Receiver<u32>,
}

impl Entered {
    /// Waits until a connection of another generation began.
    pub(crate) async fn replaced(mut self) {
        let own = self.own;
        if self.current.wait_for(|current| *current != own).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
