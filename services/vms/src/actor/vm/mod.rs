//! One VM: holds its state, steps it, starts the effects and tells the world.

mod told;

use std::sync::LazyLock;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Context, SpawnHandle};
use banger_bus::Job;
use banger_bus::effects::{deadline, run, within};
use banger_bus::family::Guard;
use banger_bus::metrics::{Member, Population};
use banger_bus::trace::Place;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::Progress;
use banger_schemas::keeper::{Backend, Exit, ExitCause, Phase};
use banger_schemas::options::{Dict, DictBuilder};
use tokio::sync::watch;

use super::boot::Boot;
use super::launch::Launched;
use super::perform::{Outcome, Tools};
use super::still::stands_still;
use super::watch as watches;
use crate::lifecycle::{After, Effect, Event, Goal, State, Way, step};
use crate::record::VmRecord;
use crate::templates::{self, Key};
use crate::view::View;

const AGENT_GONE: &str = "the agent in the guest is gone: only a stop and a start bring it back";
/// From the launch to the agent that knows who it is.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);
/// The same for a guest that was frozen when it had only that left to do.
const THAW_DEADLINE: Duration = Duration::from_secs(10);
/// Sets another boot deadline: for a host that is slower than that, and for tests that are not to wait so long.
const BOOT_DEADLINE_VARIABLE: &str = "BANGER_BOOT_DEADLINE_SECONDS";
/// A first start may have to fetch and build an image.
const MAKE: Duration = Duration::from_secs(3600);
/// The kind of a job that makes a VM.
pub(crate) const CREATE: &str = "create";
/// With the turns of all who came before.
const LAUNCH: Duration = Duration::from_secs(600);
/// So long at most others wait for a VM that comes up: long enough for most, and no guest can hold them up for longer.
const TURN: Duration = Duration::from_secs(3);
/// Anything else that is done to a VM.
const EFFECT: Duration = Duration::from_secs(120);

static VMS: LazyLock<Population> = LazyLock::new(|| Population::new("vms", "VMs, by state"));

fn boot_deadline() -> Duration {
    deadline(BOOT_DEADLINE_VARIABLE, BOOT_DEADLINE)
}

/// One VM.
pub(crate) struct VmActor {
    record: VmRecord,
    state: State,
    view: watch::Sender<View>,
    tools: Tools,
    jobs: Vec<(Goal, Job)>,
    notes: Vec<String>,
    boot_id: String,
    /// The last that the keeper said.
    phase: Option<Phase>,
    deadline: Option<SpawnHandle>,
    ending: Option<SpawnHandle>,
    making: Option<SpawnHandle>,
    /// The template of its kind, whether there is one or not.
    key: Option<Key>,
    /// While it comes up: what holds its turn, and lets it go in time.
    turn: Option<SpawnHandle>,
    /// Why it is not started from it, if that was tried in vain.
    why_not: Option<String>,
    /// While it boots: who looks whether it stands still.
    still: Option<SpawnHandle>,
    /// Why it is booted a second time, if the first stood still.
    stood_still: Option<String>,
    /// Counts the VMM's lives, so that late words about an older one are not taken for the present one's.
    life: u64,
    /// Where in a trace it is worked on: the last order's.
    place: Place,
    boot: Boot,
    counted: Member,
    /// Tells the supervisor when this is dropped.
    _guard: Guard,
}

impl VmActor {
    /// `job`: the one that makes the VM, if it is new.
    pub(super) fn new(
        record: VmRecord,
        state: State,
        view: watch::Sender<View>,
        tools: Tools,
        job: Option<(Goal, Job)>,
        guard: Guard,
    ) -> Self {
        let place = job.as_ref().map(|(_, job)| job.place()).unwrap_or_default();
        let counted = VMS.member(state.as_str());
        VmActor {
            record,
            state,
            view,
            tools,
            jobs: job.into_iter().collect(),
            notes: Vec::new(),
            boot_id: String::new(),
            phase: None,
            deadline: None,
            ending: None,
            making: None,
            key: None,
            turn: None,
            why_not: None,
            still: None,
            stood_still: None,
            life: 0,
            place,
            boot: Boot::default(),
            counted,
            _guard: guard,
        }
    }

    fn apply(&mut self, event: Event, ctx: &mut Context<Self>) {
        let before = std::mem::replace(&mut self.state, State::Gone { why: None });
        let (next, effects) = step(before.clone(), event);
        if next != before {
            self.counted.is_now(next.as_str());
            tracing::info!(vm = %self.record.id, from = before.as_str(), to = next.as_str(), "state");
        }
        self.state = next;
        self.on_entry();
        // Not kept for what comes next: it would wait for a turn with one in hand.
        if !matches!(self.state, State::Booting(_) | State::Identifying(_))
            && let Some(turn) = self.turn.take()
        {
            ctx.cancel_future(turn);
        }
        if !matches!(self.state, State::Booting(_))
            && let Some(still) = self.still.take()
        {
            ctx.cancel_future(still);
        }
        self.publish();
        for effect in effects {
            self.perform(effect, ctx);
        }
        match self.state {
            State::Gone { .. } => ctx.stop(),
            // What happens from now on by itself is nobody's order.
            State::Running | State::Stopped { .. } | State::Stuck { .. } => self.place = Place::default(),
            _ => {}
        }
    }

    /// What holds in a state however it was reached.
    fn on_entry(&mut self) {
        match &self.state {
            // A VM that never came up is kept for its log: its client may go.
            State::Ending { then: After::Stopped { why: Some(_) } }
            | State::Settling { then: After::Stopped { why: Some(_) } }
                if self.boot_id.is_empty() && self.record.client.take().is_some() =>
            {
                self.notes.push("it never came up: kept for 'banger vm logs'".into());
            }
            State::Stopped { .. } => {
                self.boot_id.clear();
                self.phase = None;
                self.why_not = None;
                self.stood_still = None;
            }
            State::Settling { then: After::Again { why } } if !self.goes_on_from_template() => {
                self.stood_still = Some(format!("{}: it was started once more", why.message));
            }
            State::Settling { then: After::Again { why } } if self.why_not.is_none() => {
                let why = format!("its template's guest did not go on: {}", why.message);
                if let Some(key) = self.key.clone() {
                    let (templates, why) = (self.tools.templates.clone(), why.clone());
                    tokio::spawn(async move { templates.condemn(&key, &why).await });
                }
                self.why_not = Some(why);
            }
            State::Running => {
                // The next of its kind will not have to boot.
                if let Some(key) = self.key.take().filter(|_| !self.goes_on_from_template()) {
                    templates::want(&self.tools, &self.record, key);
                }
            }
            _ => {}
        }
        self.boot.observe(&self.state, &self.place);
    }

    fn publish(&mut self) {
        let detail = self.state.detail();
        self.view.send_if_modified(|view| {
            let now = View {
                record: self.record.clone(),
                state: self.state.as_str(),
                detail: detail.clone(),
                notes: self.notes.clone(),
                boot_id: self.boot_id.clone(),
            };
            let changed = *view != now;
            *view = now;
            changed
        });
        for (goal, job) in std::mem::take(&mut self.jobs) {
            match goal.verdict(&self.state) {
                None => {
                    if !detail.is_empty() {
                        job.stage(detail.clone());
                    }
                    self.jobs.push((goal, job));
                }
                Some(verdict) => job.finish(verdict.map(|()| self.result())),
            }
        }
    }

    /// What a job that succeeded brings.
    fn result(&self) -> Dict {
        DictBuilder::default()
            .set("id", self.record.id.as_str())
            .set("name", self.record.name.as_str())
            .set("notes", self.notes.clone())
            .set("boot-id", self.boot_id.as_str())
            .build()
    }

    /// Takes what an effect found out, then steps.
    fn conclude(&mut self, outcome: Result<Outcome>, event: fn(Result<()>) -> Event, ctx: &mut Context<Self>) {
        let result = outcome.map(|outcome| self.found_out(outcome));
        self.apply(event(result), ctx);
    }

    fn found_out(&mut self, outcome: Outcome) {
        self.record = VmRecord { client: self.record.client.clone(), ..outcome.record };
        self.notes.extend(outcome.notes);
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let (tools, record) = (self.tools.clone(), self.record.clone());
        let _place = self.place.enter();
        match effect {
            Effect::Make => {
                let reporter = self.jobs.first().map(|(_, job)| job.reporter());
                let progress = move |p: Progress| reporter.iter().for_each(|r| r.progress(p.clone()));
                self.making = Some(run(ctx, "make", MAKE, tools.make(record, progress), |me, out, ctx| {
                    me.conclude(out, Event::Made, ctx);
                }));
            }
            Effect::Abandon => {
                if let Some(making) = self.making.take() {
                    ctx.cancel_future(making);
                }
                let canceled = Error::new(Kind::Canceled, "canceled on request");
                self.apply(Event::Made(Err(canceled)), ctx);
            }
            Effect::AwaitAgent => {
                let deadline = match self.state {
                    // It has nothing to do that takes time; and a boot is still to come if it does not come.
                    State::Booting(Way::Template) => THAW_DEADLINE.min(boot_deadline()),
                    _ => boot_deadline(),
                };
                self.deadline = Some(ctx.run_later(deadline, |me, ctx| me.late(ctx)));
                if self.may_stand_still() {
                    let still = wrap_future::<_, Self>(stands_still(tools, record.id));
                    self.still = Some(ctx.spawn(still.map(|why, me, ctx| me.apply(Event::Still(why), ctx))));
                }
            }
            Effect::Launch => {
                self.notes.clear();
                let launch = tools.launch(record, self.why_not.clone());
                run(ctx, "launch", LAUNCH, launch, |me, out, ctx| me.launched(out, ctx));
            }
            Effect::Identify => {
                run(ctx, "identify", EFFECT, tools.identify(record), |me, out, ctx| {
                    let result = out.map(|ready| {
                        me.boot_id = ready.boot_id;
                        me.notes.extend(ready.warnings);
                    });
                    me.apply(Event::Identified(result), ctx);
                });
            }
            Effect::Shutdown { grace_ms } => {
                let limit = EFFECT + Duration::from_millis(grace_ms.into());
                let ending = run(ctx, "shutdown", limit, tools.shutdown(record, grace_ms), Self::keeper_must_be_gone);
                self.ends_by(ending, ctx);
            }
            Effect::Kill => {
                let ending = run(ctx, "kill", EFFECT, tools.kill(record), Self::keeper_must_be_gone);
                self.ends_by(ending, ctx);
            }
            Effect::Settle => {
                for handle in [self.deadline.take(), self.ending.take()].into_iter().flatten() {
                    ctx.cancel_future(handle);
                }
                let goes = matches!(self.state, State::Settling { then: After::Removed });
                run(ctx, "settle", EFFECT, tools.settle(record, goes), |me, out, ctx| {
                    if let Ok(outcome) = out {
                        me.record = VmRecord { client: me.record.client.clone(), ..outcome.record };
                    }
                    me.apply(Event::Settled, ctx);
                });
            }
            Effect::Remove => {
                run(ctx, "remove", EFFECT, tools.remove(record), |me, out, ctx| me.apply(Event::Removed(out), ctx));
            }
        }
    }

    fn launched(&mut self, launched: Result<Launched>, ctx: &mut Context<Self>) {
        let way = launched.map(|Launched { outcome, key, turn }| {
            self.found_out(outcome);
            self.key = key;
            self.turn = Some(ctx.run_later(TURN, move |_, _| drop(turn)));
            self.notes.extend(self.stood_still.clone());
            self.follow_keeper(ctx);
            if self.goes_on_from_template() { Way::Template } else { Way::Boot }
        });
        self.apply(Event::Launched(way), ctx);
    }

    /// Whether this start, the last one or the one under way, goes on from a template's guest.
    fn goes_on_from_template(&self) -> bool {
        self.record.started.as_ref().is_some_and(|started| started.template)
    }

    /// Whether this boot may be one that stands still: not a second one, which has all the time that there is.
    fn may_stand_still(&self) -> bool {
        let emulated = self.record.backend.as_deref() == Some(Backend::QemuTcg.as_str());
        self.state == State::Booting(Way::Boot) && emulated && self.stood_still.is_none()
    }

    /// One way down at a time.
    fn ends_by(&mut self, ending: SpawnHandle, ctx: &mut Context<Self>) {
        if let Some(before) = self.ending.replace(ending) {
            ctx.cancel_future(before);
        }
    }

    /// A keeper that is gone has taken its VMM along. Of any other failure nothing is concluded: the watch tells.
    fn keeper_must_be_gone(&mut self, outcome: Result<()>, ctx: &mut Context<Self>) {
        match outcome {
            Err(error) if error.kind == Kind::Gone => self.apply(Event::Exited(error), ctx),
            _ => {}
        }
    }

    /// Nothing else is done meanwhile, since whatever it is writes the record too.
    fn set(&mut self, nat: Option<bool>, job: Job, ctx: &mut Context<Self>) {
        let refused = match self.state {
            _ if nat == Some(true) && !self.record.network => Some("has no network".to_owned()),
            State::Stopped { .. }
            | State::Booting(_)
            | State::Identifying(_)
            | State::Running
            | State::Silent { .. } => None,
            _ => Some(format!("is {}: try again when it is not", self.state.as_str())),
        };
        if let Some(why) = refused {
            return job.finish(Err(Error::new(Kind::WrongState, format!("{} {why}", self.record.name))));
        }
        let record = VmRecord { nat: nat.unwrap_or(self.record.nat), ..self.record.clone() };
        let _place = job.place().enter();
        let effect = within("set", EFFECT, self.tools.clone().set(record));
        ctx.wait(wrap_future::<_, Self>(effect).map(|outcome, me, _| {
            let verdict = outcome.map(|outcome| me.found_out(outcome));
            me.publish();
            job.finish(verdict.map(|()| me.result()));
        }));
    }

    fn follow_keeper(&mut self, ctx: &mut Context<Self>) {
        self.life += 1;
        let watch = watches::keeper(self.tools.keepers.clone(), self.record.id.clone(), self.life, ctx.address());
        ctx.spawn(wrap_future(watch));
    }

    fn late(&mut self, ctx: &mut Context<Self>) {
        self.deadline = None;
        if !matches!(self.state, State::Launching { .. } | State::Booting(_) | State::Identifying(_)) {
            return;
        }
        let (tools, phase, vm) = (self.tools.clone(), self.phase.clone(), self.record.id.clone());
        let error = async move { Ok(tools.late(vm, phase, boot_deadline()).await) };
        run(ctx, "late", EFFECT, error, |me, error, ctx| me.apply(Event::Late(error.unwrap_or_else(|e| e)), ctx));
    }

    fn exited(&mut self, exit: Exit, ctx: &mut Context<Self>) {
        if exit.cause == ExitCause::Lease {
            self.apply(Event::ClientGone, ctx);
        }
        self.life += 1;
        let booting = !matches!(self.state, State::Running | State::Ending { .. });
        let (tools, vm) = (self.tools.clone(), self.record.id.clone());
        let error = async move { Ok(tools.ended(&vm, &exit, booting).await) };
        run(ctx, "exited", EFFECT, error, |me, error, ctx| me.apply(Event::Exited(error.unwrap_or_else(|e| e)), ctx));
    }

    /// Keeps an eye on the client, if there is one.
    fn follow_client(&mut self, ctx: &mut Context<Self>) {
        let Some(owner) = &self.record.client else { return };
        match owner.process.open() {
            Some(process) => {
                let bus = self.tools.service.bus().clone();
                // A name of another life of the bus means nothing on this one.
                let name = matches!(self.state, State::Creating { .. }).then(|| owner.bus_name.clone());
                let watch = watches::client(bus, name, process, ctx.address());
                ctx.spawn(wrap_future(watch));
            }
            None => self.apply(Event::ClientGone, ctx),
        }
    }
}

impl Actor for VmActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.publish();
        if let Some((_, job)) = self.jobs.first() {
            told::watch_cancel(job, ctx.address());
        }
        if matches!(self.state, State::Booting(_) | State::Silent { .. } | State::Ending { .. }) {
            self.follow_keeper(ctx);
        }
        for effect in self.state.first_effects() {
            self.perform(effect, ctx);
        }
        self.follow_client(ctx);
    }
}
