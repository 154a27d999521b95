//! The D-Bus face of a job.

use std::sync::Arc;

use banger_schemas::action::{Action, VIEW_ALL, VM_MANAGE_ALL};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::{self, State};
use banger_schemas::options::Dict;
use zbus::interface;
use zbus::message::Header;
use zbus::wire::OwnedVariant;

use super::{Shared, Snapshot};
use crate::authorize::Authorizer;
use crate::caller::Callers;
use crate::objects::{self, Values};

#[derive(Debug)]
pub(super) struct JobFace {
    shared: Arc<Shared>,
    callers: Callers,
    authorizer: Arc<dyn Authorizer>,
}

impl JobFace {
    pub(super) fn new(shared: Arc<Shared>, callers: Callers, authorizer: Arc<dyn Authorizer>) -> Self {
        JobFace { shared, callers, authorizer }
    }

    /// A job is its owner's, and of those who may do this with everybody's.
    async fn authorize(&self, header: &Header<'_>, action: &'static Action) -> Result<()> {
        let caller = self.callers.of(header).await?;
        if caller.uid == self.shared.owner {
            return Ok(());
        }
        self.authorizer.check(&caller, action, &[("owner", &self.shared.owner.to_string())]).await
    }
}

#[interface(name = "dev.banger.Job1")]
impl JobFace {
    /// Asks the job to stop. It ends as 'canceled', unless it was too late.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.authorize(&header, VM_MANAGE_ALL).await?;
        self.shared.cancel.notify_one();
        Ok(())
    }

    /// Replies when the job has ended: its state, its result, and the name and sentence of its error.
    #[zbus(out_args("state", "result", "error_name", "error_message"))]
    async fn wait(&self, #[zbus(header)] header: Header<'_>) -> Result<(String, Dict, String, String)> {
        self.authorize(&header, VIEW_ALL).await?;
        let mut changes = self.shared.snapshot.subscribe();
        let end = changes
            .wait_for(|s| s.state != State::Running)
            .await
            .map_err(|_| Error::new(Kind::Gone, "the job went away"))?;
        let (name, message) = match &end.error {
            Some(error) => (error.name().to_owned(), error.message.clone()),
            None => (String::new(), String::new()),
        };
        Ok((end.state.to_string(), end.result.clone(), name, message))
    }

    /// What kind of work it is: create, start, pull, ….
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        self.shared.kind.to_string()
    }

    /// The uid that it works for.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> u32 {
        self.shared.owner
    }

    /// running, done, canceled, timeout or failed.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn state(&self) -> String {
        self.shared.snapshot.borrow().state.to_string()
    }

    /// Stage, done, total (0: unknown), unit.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn progress(&self) -> (String, u64, u64, String) {
        let p = self.shared.snapshot.borrow().progress.clone();
        (p.stage, p.done, p.total, p.unit)
    }
}

impl objects::Snapshot for Snapshot {
    const INTERFACE: &'static str = job::INTERFACE;

    fn values(&self) -> Values {
        let p = self.progress.clone();
        let progress = OwnedVariant::try_from(zbus::wire::Variant::from((p.stage, p.done, p.total, p.unit)));
        let mut values = Values::from([("State", OwnedVariant::from(zbus::wire::Str::from(self.state.as_str())))]);
        values.extend(progress.ok().map(|value| ("Progress", value)));
        values
    }
}
