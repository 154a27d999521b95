//! The network of one user without any privilege: a holder keeps the namespaces, slirp4netns is the uplink, and
//! changes inside are made by a helper that enters. All of it outlives the service and is found again by records.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::pin;

use banger_schemas::VmId;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select};
use tokio::sync::Mutex;

use super::applied::Applied;
use super::within::{Op, Outcome};
use super::{Answer, Ensured, Error, Host, Refusal, address, tap, tools};
use crate::plan::Plan;
use crate::render::{Protocol, Publication, Ruleset};
use banger_bus::process::Process;
use process::forget;
use slirp::Slirp;

pub mod detach;
mod ensure;
mod helper;
pub mod holder;
pub mod probe;
pub mod process;
pub mod slirp;
mod uplink;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The program `banger-netns`.
    pub helper: PathBuf,
    /// For the uplink's socket. It may be deleted at logout: the uplink is then started again.
    pub runtime: PathBuf,
    /// For the records of the two processes.
    pub state: PathBuf,
}

/// The network of the user who runs this.
#[derive(Debug)]
pub struct Rootless {
    plan: Plan,
    places: Places,
    /// One change at a time: two of them would start two holders.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    rules: Applied,
    /// What was asked for, to be given back when it is lost.
    published: BTreeMap<(Protocol, SocketAddrV4), Publication>,
    /// Holder and uplink, as `ensure` left them. Nobody but this user gets at what is inside, so that it is whole as long as
    /// they live and nothing fails.
    whole: Option<Whole>,
}

#[derive(Debug)]
struct Whole {
    holder: Process,
    uplink: Process,
    notes: Vec<String>,
}

impl Whole {
    fn lives(&self) -> bool {
        self.holder.alive() && self.uplink.alive()
    }
}

impl Known {
    /// What a change has come to: after a failure everything is looked at again.
    fn noted<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_err() {
            self.whole = None;
        }
        outcome
    }
}

impl Rootless {
    pub fn new(places: Places) -> Self {
        Rootless { plan: Plan::rootless(), places, known: Mutex::default() }
    }

    fn holder_record(&self) -> PathBuf {
        self.places.state.join("holder.json")
    }

    fn slirp(&self) -> Slirp {
        Slirp::at(uplink::socket(&self.places))
    }

    /// The recorded holder, dead or alive.
    fn recorded(&self) -> Result<Option<Process>, Error> {
        let record = self.holder_record();
        readable(process::recorded(&record), &record)
    }

    async fn within(&self, ops: Vec<Op>) -> Result<(Vec<Outcome>, Vec<OwnedFd>), Error> {
        let holder = self.recorded()?.filter(Process::alive).ok_or(Error::NoNamespace)?;
        helper::within(&self.places.helper, &holder, ops).await
    }

    async fn one(&self, op: Op) -> Result<Outcome, Error> {
        self.within(vec![op]).await?.0.into_iter().next().ok_or_else(nonsense)
    }

    /// Forwards a port, if it is not forwarded so already.
    async fn forward(&self, publication: &Publication) -> Result<(), Error> {
        let slirp = self.slirp();
        let forwards = slirp.list().await?;
        let at = (publication.protocol, publication.outside);
        match forwards.iter().find(|forward| (forward.protocol(), forward.outside()) == at) {
            Some(forward) if forward.is(publication) => return Ok(()),
            Some(forward) => slirp.remove(forward.id).await?,
            None => {}
        }
        address::try_port(publication.protocol, publication.outside)?;
        slirp.add(publication).await
    }

    async fn stop_forward(&self, protocol: Protocol, outside: SocketAddrV4) -> Result<bool, Error> {
        let slirp = self.slirp();
        for forward in slirp.list().await? {
            if (forward.protocol(), forward.outside()) == (protocol, outside) {
                return slirp.remove(forward.id).await.map(|()| true);
            }
        }
        Ok(false)
    }

    /// Whether this machine can do it, found out by doing it.
    async fn try_all(&self) -> Result<(), Refusal> {
        let helper = &self.places.helper;
        if !tools::runnable(helper) {
            return Err(Refusal::HelperMissing(helper.display().to_string()));
        }
        tools::find("nft").ok_or(Refusal::NftMissing)?;
        tools::find("slirp4netns").ok_or(Refusal::SlirpMissing)?;
        helper::probe(helper).await
    }

    async fn end_all(&self) -> Result<Vec<String>, Error> {
        let mut known = self.known.lock().await;
        let was = self.recorded()?.is_some();
        uplink::end(&self.places).await?;
        if let Some(holder) = self.recorded()? {
            holder.end().await.map_err(Error::io("ending the holder"))?;
        }
        forget(&self.holder_record()).map_err(Error::io("the holder's record"))?;
        *known = Known::default();
        Ok(if was { vec!["the network of VMs and its uplink have ended".to_owned()] } else { Vec::new() })
    }
}

impl Host for Rootless {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        async {
            // Where it does, it can.
            if self.known.lock().await.whole.as_ref().is_some_and(Whole::lives) {
                return Ok(());
            }
            self.try_all().await
        }
        .boxed()
    }

    fn ensure(&self) -> Answer<'_, Ensured> {
        self.ensure_all().boxed()
    }

    fn lost(&self) -> Answer<'_, ()> {
        async {
            let (Some(holder), Some(uplink)) = (self.recorded()?, uplink::find(&self.places)?) else { return Ok(()) };
            select(pin!(holder.ended()), pin!(uplink.ended())).await.factor_first().0.map_err(Error::io("watching"))
        }
        .boxed()
    }

    fn add_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, OwnedFd> {
        async {
            let mut known = self.known.lock().await;
            let op = Op::AddTap { name: vm.tap_name(), bridge: self.plan.bridge.clone() };
            known.noted(self.within(vec![op]).await)?.1.into_iter().next().ok_or_else(nonsense)
        }
        .boxed()
    }

    fn remove_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, bool> {
        async {
            let _turn = self.known.lock().await;
            match self.one(Op::RemoveLink { name: vm.tap_name() }).await {
                Ok(Outcome::Removed(was)) => Ok(was),
                // It went with its namespace.
                Err(Error::NoNamespace) => Ok(false),
                outcome => outcome.and_then(|_| Err(nonsense())),
            }
        }
        .boxed()
    }

    fn taps(&self) -> Answer<'_, Vec<VmId>> {
        async {
            match self.one(Op::Ports { bridge: self.plan.bridge.clone() }).await {
                Ok(Outcome::Ports(names)) => Ok(names.iter().filter_map(|name| tap::vm_of(name)).collect()),
                Err(Error::NoNamespace) => Ok(Vec::new()),
                outcome => outcome.and_then(|_| Err(nonsense())),
            }
        }
        .boxed()
    }

    fn sweep<'a>(&'a self, known: &'a BTreeSet<VmId>) -> Answer<'a, Vec<String>> {
        async {
            // Nobody else makes links in this namespace.
            let mut found = Vec::new();
            for vm in self.taps().await?.into_iter().filter(|vm| !known.contains(vm)) {
                self.remove_tap(&vm).await?;
                found.push(format!("the TAP of VM {vm}, which is known no more, is removed"));
            }
            Ok(found)
        }
        .boxed()
    }

    fn apply<'a>(&'a self, rules: &'a Ruleset) -> Answer<'a, ()> {
        async {
            let mut known = self.known.lock().await;
            let load = async |text| self.one(Op::Rules { text }).await.map(drop);
            let applied = known.rules.apply(rules, &self.plan, load).await;
            known.noted(applied)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, publication: &'a Publication) -> Answer<'a, ()> {
        async {
            let mut known = self.known.lock().await;
            known.noted(self.forward(publication).await)?;
            known.published.insert((publication.protocol, publication.outside), *publication);
            Ok(())
        }
        .boxed()
    }

    fn unpublish(&self, protocol: Protocol, outside: SocketAddrV4) -> Answer<'_, bool> {
        async move {
            let mut known = self.known.lock().await;
            // Forgotten first: it must not come back, whatever the uplink says.
            known.published.remove(&(protocol, outside));
            if uplink::find(&self.places)?.is_none() {
                return Ok(false);
            }
            known.noted(self.stop_forward(protocol, outside).await)
        }
        .boxed()
    }

    fn published(&self) -> Answer<'_, Vec<(Protocol, SocketAddrV4)>> {
        async {
            if uplink::find(&self.places)?.is_none() {
                return Ok(Vec::new());
            }
            let forwards = self.slirp().list().await?;
            Ok(forwards.iter().map(|forward| (forward.protocol(), forward.outside())).collect())
        }
        .boxed()
    }

    fn down(&self) -> Answer<'_, Vec<String>> {
        self.end_all().boxed()
    }
}

fn nonsense() -> Error {
    Error::Op { op: "the helper".to_owned(), message: "an answer to another question".to_owned() }
}

/// A record that cannot be read stops everything: its process may live, and a second one beside it would be worse.
fn readable(read: io::Result<Option<Process>>, record: &Path) -> Result<Option<Process>, Error> {
    read.map_err(Error::io(format!("cannot understand {}; remove it if no VM runs", record.display())))
}
