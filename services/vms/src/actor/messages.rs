//! What is said to the actors, in the order of a VM's life.

use actix::Message;
use banger_bus::Job;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Result};
use banger_schemas::keeper::Status;
use banger_schemas::vms::Spec;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::lifecycle::{Goal, State};
use crate::record::{Client, VmRecord};
use crate::view::View;

/// Makes a VM. To the supervisor.
#[derive(Debug, Message)]
#[rtype(result = "Result<Created>")]
pub(crate) struct Create {
    pub(crate) spec: Spec,
    pub(crate) owner: u32,
    pub(crate) token: Option<String>,
    /// The client that it is leased to.
    pub(crate) client: Option<Client>,
    pub(crate) job: Job,
}

/// A VM that is being made, or that the token has made before.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) id: VmId,
    /// Absent when the VM was there already.
    pub(crate) fresh: Option<watch::Receiver<View>>,
    pub(crate) job: zbus::wire::OwnedObjectPath,
}

/// Takes a VM of an earlier life in. To the supervisor, before the service has its name.
#[derive(Debug, Message)]
#[rtype(result = "Result<watch::Receiver<View>>")]
pub(crate) struct Adopt {
    pub(crate) record: VmRecord,
    pub(crate) state: State,
    /// The job that was making it.
    pub(crate) job: Option<(Goal, Job)>,
}

/// Resolves a name, an id or the beginning of one. To the supervisor.
#[derive(Debug, Message)]
#[rtype(result = "Result<Found>")]
pub(crate) struct Find {
    pub(crate) reference: String,
    /// Whose VMs are looked at; `None`: everybody's.
    pub(crate) owner: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: VmId,
}

/// Has a VM do something. To the supervisor, which hands it on.
#[derive(Debug, Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Drive {
    pub(crate) id: VmId,
    pub(crate) order: Order,
    pub(crate) job: Job,
}

/// What a user may ask of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    Start,
    Stop {
        grace_ms: u32,
    },
    /// What is not given stays.
    Set {
        nat: Option<bool>,
    },
    Delete,
}

/// To the VM: do this, and end the job when it is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Obey {
    pub(super) order: Order,
    pub(super) job: Job,
}

/// To the VM: a job of yours was asked to stop.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct JobCanceled {
    pub(super) job: zbus::wire::OwnedObjectPath,
}

/// To the VM: its client is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ClientGone;

/// To the VM: what its keeper says.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct KeeperSays {
    /// Which of the VMM's lives it speaks of.
    pub(super) life: u64,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    Status(Status),
    /// The keeper is there and does not answer.
    Silent(Error),
    /// There is no keeper any more.
    Gone(Error),
}

/// To the supervisor: a child's end, however it came.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ChildGone {
    pub(super) id: VmId,
    pub(super) panicked: bool,
}
