//! Jobs of an earlier life of the service: whoever waits for one gets what was asked for, and does not notice.

use std::collections::HashMap;

use banger_bus::{Door, Job};
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actor::{Drive, Order, Supervisor};
use crate::lifecycle::{Goal, State};
use crate::view::View;

/// What a job is about, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    Create { vm: VmId, start: bool },
    Drive { vm: VmId, order: Order },
}

impl Work {
    fn vm(&self) -> &VmId {
        match self {
            Work::Create { vm, .. } | Work::Drive { vm, .. } => vm,
        }
    }
}

/// What was interrupted.
#[derive(Debug)]
pub(crate) struct Interrupted(Vec<(Work, Job)>);

impl Interrupted {
    pub(crate) fn new(jobs: Vec<(Work, Job)>) -> Self {
        Interrupted(jobs)
    }

    fn creation(&self, of: &VmId) -> Option<(usize, bool)> {
        self.0.iter().enumerate().find_map(|(at, (work, _))| match work {
            Work::Create { vm, start } if vm == of => Some((at, *start)),
            _ => None,
        })
    }

    /// Whether somebody waits for this VM to be made, and to be started then.
    pub(crate) fn making(&self, vm: &VmId) -> Option<bool> {
        self.creation(vm).map(|(_, start)| start)
    }

    /// The job that makes the VM, for the VM itself, unless what is left of it is a start.
    pub(crate) fn take_creation(&mut self, vm: &VmId, state: &State) -> Option<(Goal, Job)> {
        let (at, start) = self.creation(vm)?;
        let is_left = !start || matches!(state, State::Creating { .. });
        is_left.then(|| (Goal::of_creation(start), self.0.swap_remove(at).1))
    }

    /// Gives each order again: a VM that has done it already says so.
    pub(crate) fn go_on(self, door: &Door<Supervisor>, vms: &HashMap<VmId, watch::Receiver<View>>) {
        for (work, job) in self.0 {
            let view = vms.get(work.vm()).cloned();
            tokio::spawn(go_on(work, job, view, door.clone()));
        }
    }
}

async fn go_on(work: Work, job: Job, view: Option<watch::Receiver<View>>, door: Door<Supervisor>) {
    let order = match &work {
        Work::Create { .. } => Order::Start,
        Work::Drive { order, .. } => *order,
    };
    match view {
        Some(mut view) => {
            // What comes down because the service was away is started again once it is down.
            if order == Order::Start {
                drop(view.wait_for(|view| view.state != "stopping").await);
            }
            if let Err(error) = door.ask(Drive { id: work.vm().clone(), order, job }).await {
                tracing::warn!(vm = %work.vm(), %error, "a job was not gone on with");
            }
        }
        None if order == Order::Delete => job.finish(Ok(Default::default())),
        None => job.finish(Err(Error::new(Kind::Gone, "banger was interrupted before it had begun: try again"))),
    }
}
