//! The table actor: owns the leases and says what shall hold; effects bring it about.

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use banger_bus::effects::run;
use banger_schemas::VmId;
use banger_schemas::error::Result;
use banger_schemas::network::Lease;
use banger_schemas::vms::Port;

use crate::host::address;
use crate::perform::Effects;
use crate::table::Table;

/// Between the death of the uplink and its next start, so that one that always dies costs little.
const MEND_AFTER: Duration = Duration::from_millis(300);
const MEND: Duration = Duration::from_secs(30);

#[derive(Message)]
#[rtype(result = "Result<Lease>")]
pub(crate) struct Reserve {
    pub(crate) holder: VmId,
    /// Whose loopback range the host address is in.
    pub(crate) uid: u32,
    pub(crate) ports: Vec<Port>,
    pub(crate) nat: bool,
}

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct SetNat {
    pub(crate) holder: VmId,
    pub(crate) nat: bool,
}

#[derive(Message)]
#[rtype(result = "Result<(OwnedFd, Lease)>")]
pub(crate) struct OpenTap {
    pub(crate) holder: VmId,
}

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct CloseTap {
    pub(crate) holder: VmId,
}

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Release {
    pub(crate) holder: VmId,
}

#[derive(Message)]
#[rtype(result = "Result<Vec<String>>")]
pub(crate) struct Holders;

#[derive(Message)]
#[rtype(result = "Result<String>")]
pub(crate) struct Probe;

#[derive(Message)]
#[rtype(result = "Result<Vec<String>>")]
pub(crate) struct Notes;

#[derive(Message)]
#[rtype(result = "Result<Vec<String>>")]
pub(crate) struct Retract;

/// Owns the leases.
pub(crate) struct Network {
    table: Table,
    effects: Effects,
    watching: bool,
}

impl Network {
    pub(crate) fn new(table: Table, effects: Effects) -> Self {
        Network { table, effects, watching: false }
    }

    /// Tells the effects what shall hold now.
    fn want(&self) {
        self.effects.want(self.table.rules());
    }

    /// Makes namespace and uplink again when they die while VMs need them.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if self.watching {
            return;
        }
        self.watching = true;
        let lost = self.effects.clone().lost();
        ctx.spawn(actix::fut::ActorFutureExt::map(actix::fut::wrap_future::<_, Self>(lost), |lost, me, ctx| {
            me.watching = false;
            if lost.is_ok() && !me.table.rules().guests.is_empty() {
                tracing::info!("the VM network has changed from outside and is looked after");
                ctx.run_later(MEND_AFTER, |me, ctx| {
                    run(ctx, "mend", MEND, me.effects.clone().mend(), |me, mended, ctx| {
                        if mended.is_ok() {
                            me.watch(ctx);
                        }
                    });
                });
            }
        }));
    }
}

impl Actor for Network {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        run(ctx, "sweep", MEND, self.effects.clone().sweep(self.table.known()), |_, _, _| ());
        // VMs that run on from an earlier life of the service.
        if !self.table.rules().guests.is_empty() {
            run(ctx, "mend", MEND, self.effects.clone().mend(), |me, _, ctx| me.watch(ctx));
        }
    }
}

impl Handler<Reserve> for Network {
    type Result = ResponseFuture<Result<Lease>>;
    fn handle(&mut self, message: Reserve, _: &mut Context<Self>) -> Self::Result {
        let reserved = self.table.reserve(&message.holder, message.uid, &message.ports, message.nat, address::usable);
        let answer = reserved.map(|(record, last)| (self.table.lease(&message.holder, &record), record, last));
        let effects = self.effects.clone();
        Box::pin(async move {
            let (answer, record, last) = answer?;
            effects.record(message.holder, record, Some(last)).await?;
            Ok(answer)
        })
    }
}

impl Handler<OpenTap> for Network {
    type Result = ResponseFuture<Result<(OwnedFd, Lease)>>;
    fn handle(&mut self, message: OpenTap, ctx: &mut Context<Self>) -> Self::Result {
        let opened = self.table.set_open(&message.holder, true);
        self.want();
        let opened = opened.map(|record| (self.table.lease(&message.holder, &record), record));
        let (effects, me) = (self.effects.clone(), ctx.address());
        Box::pin(async move {
            let (lease, record) = opened?;
            let tap = effects.open(message.holder, record).await?;
            banger_bus::post(&me, Watch);
            Ok((tap, lease))
        })
    }
}

impl Handler<CloseTap> for Network {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: CloseTap, _: &mut Context<Self>) -> Self::Result {
        let closed = self.table.set_open(&message.holder, false);
        self.want();
        let effects = self.effects.clone();
        Box::pin(async move { effects.close(message.holder, closed?).await })
    }
}

impl Handler<Release> for Network {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: Release, ctx: &mut Context<Self>) -> Self::Result {
        let Ok(lease) = self.table.get(&message.holder) else { return Box::pin(std::future::ready(Ok(()))) };
        self.table.release(&message.holder);
        self.want();
        if lease.open {
            let leave = self.effects.clone().leave(message.holder.clone(), lease.clone());
            run(ctx, "removing a device", MEND, leave, |_, _, _| ());
        }
        Box::pin(self.effects.clone().release(message.holder, lease))
    }
}

impl Handler<SetNat> for Network {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: SetNat, _: &mut Context<Self>) -> Self::Result {
        let changed = self.table.set_nat(&message.holder, message.nat);
        self.want();
        let effects = self.effects.clone();
        Box::pin(async move { effects.change(message.holder, changed?).await })
    }
}

impl Handler<Holders> for Network {
    type Result = Result<Vec<String>>;
    fn handle(&mut self, _: Holders, _: &mut Context<Self>) -> Self::Result {
        Ok(self.table.holders())
    }
}

impl Handler<Probe> for Network {
    type Result = ResponseFuture<Result<String>>;
    fn handle(&mut self, _: Probe, _: &mut Context<Self>) -> Self::Result {
        let effects = self.effects.clone();
        Box::pin(async move { Ok(effects.probe().await) })
    }
}

impl Handler<Notes> for Network {
    type Result = Result<Vec<String>>;
    fn handle(&mut self, _: Notes, _: &mut Context<Self>) -> Self::Result {
        Ok(self.effects.notes())
    }
}

impl Handler<Retract> for Network {
    type Result = ResponseFuture<Result<Vec<String>>>;
    fn handle(&mut self, _: Retract, _: &mut Context<Self>) -> Self::Result {
        Box::pin(self.effects.clone().retract())
    }
}

/// To itself: there is something to watch.
#[derive(Message)]
#[rtype(result = "()")]
struct Watch;

impl Handler<Watch> for Network {
    type Result = ();
    fn handle(&mut self, _: Watch, ctx: &mut Context<Self>) {
        self.watch(ctx);
    }
}
