//! What a VM is told: by users through the supervisor, by its keeper, of its client.

use actix::{Addr, AsyncContext, Context, Handler};
use banger_bus::{Job, post};
use banger_schemas::error::{Error, Kind};
use banger_schemas::keeper::{Exit, ExitCause, Phase};

use super::{AGENT_GONE, CREATE, VmActor};
use crate::actor::messages::{ClientGone, JobCanceled, KeeperSays, Obey, Order, Word};
use crate::lifecycle::{After, Event, Goal, State};

/// Tells the actor when somebody asks the job to stop.
pub(super) fn watch_cancel(job: &Job, actor: Addr<VmActor>) {
    let (canceled, path) = (job.canceled(), job.path());
    tokio::spawn(async move {
        if canceled.await {
            post(&actor, JobCanceled { job: path });
        }
    });
}

impl Handler<Obey> for VmActor {
    type Result = ();
    fn handle(&mut self, message: Obey, ctx: &mut Context<Self>) {
        let (goal, event) = match message.order {
            Order::Start => (Goal::Running, Event::Start),
            Order::Stop { grace_ms } => (Goal::Stopped, Event::Stop { grace_ms }),
            Order::Delete => (Goal::Gone, Event::Delete),
            Order::Set { nat } => return self.set(nat, message.job, ctx),
        };
        watch_cancel(&message.job, ctx.address());
        // The event first: the state that the goal is measured against is the one that follows.
        let refused = match (&self.state, message.order) {
            (State::Removing { .. } | State::Stuck { .. }, Order::Start | Order::Stop { .. }) => Some("being deleted"),
            (State::Ending { then } | State::Settling { then }, Order::Start)
                if !matches!(then, After::Again { .. }) =>
            {
                Some("being stopped")
            }
            _ => None,
        };
        if let Some(why) = refused {
            let name = &self.record.name;
            message.job.finish(Err(Error::new(Kind::WrongState, format!("{name} is {why}"))));
            return;
        }
        self.place = message.job.place();
        self.apply(event, ctx);
        self.jobs.push((goal, message.job));
        self.publish();
    }
}

impl Handler<JobCanceled> for VmActor {
    type Result = ();
    fn handle(&mut self, message: JobCanceled, ctx: &mut Context<Self>) {
        let Some(at) = self.jobs.iter().position(|(_, job)| job.path() == message.job) else { return };
        match self.jobs[at].0 {
            // What a stop or a delete has begun goes on.
            Goal::Stopped | Goal::Gone => {}
            Goal::Made | Goal::Running => {
                let (_, job) = self.jobs.swap_remove(at);
                // Whoever takes a creation back wants no VM, however far it has come.
                let event = if job.kind() == CREATE { Event::Delete } else { Event::Stop { grace_ms: 0 } };
                job.finish(Err(Error::new(Kind::Canceled, "canceled on request")));
                self.apply(event, ctx);
            }
        }
    }
}

impl Handler<ClientGone> for VmActor {
    type Result = ();
    fn handle(&mut self, _: ClientGone, ctx: &mut Context<Self>) {
        if self.record.client.is_some() {
            tracing::info!(vm = %self.record.id, "the client is gone");
            self.apply(Event::ClientGone, ctx);
        }
    }
}

impl Handler<KeeperSays> for VmActor {
    type Result = ();
    fn handle(&mut self, message: KeeperSays, ctx: &mut Context<Self>) {
        if message.life != self.life {
            return;
        }
        match message.word {
            Word::Status(status) => match status.phase {
                Phase::Exited(exit) => self.exited(exit, ctx),
                phase => {
                    let up = phase == Phase::Agent;
                    let lost = self.phase == Some(Phase::Agent) && !up && self.state == State::Running;
                    self.phase = Some(phase);
                    if up {
                        self.apply(Event::AgentUp, ctx);
                    } else if lost && !self.notes.iter().any(|note| note == AGENT_GONE) {
                        self.notes.push(AGENT_GONE.into());
                        self.publish();
                    }
                }
            },
            Word::Silent(error) => self.apply(Event::Silent(error), ctx),
            Word::Gone(error) => {
                let exit = Exit { cause: ExitCause::Signal(9), message: error.message };
                self.exited(exit, ctx);
            }
        }
    }
}
