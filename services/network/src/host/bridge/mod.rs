//! The network of a real host, in the host's own namespace: a bridge, persistent TAPs and two nftables tables, beside
//! whatever else is there. Needs CAP_NET_ADMIN and nothing else.
//!
//! Everything of ours is told from what is others' by a mark (links), a name (tables) or a comment (rules in another
//! firewall's place), and is found again by it: nothing here lives in a process but the warm TAPs. What is changed of
//! the host besides is recorded before, and put back by `down`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use banger_bus::Records;
use banger_schemas::VmId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::applied::Applied;
use super::links::Links;
use super::{Answer, Ensured, Error, Host, Refusal, nft, tap, tools};
use crate::plan::Plan;
use crate::render::{self, Protocol, Publication, Ruleset};
use warm::Warm;
use watch::Watch;

mod ensure;
mod firewalls;
mod forward;
mod ports;
mod warm;
mod watch;

/// How a host wants it.
#[derive(Debug, Clone)]
pub struct Config {
    /// TAPs that are made before a VM needs one.
    pub warm: usize,
    /// Whether other firewalls, where they drop VMs' packets, may be told to let them pass.
    pub tell_firewalls: bool,
    /// Where firewalld is.
    pub bus: Option<zbus::Connection>,
    /// Told with what the host lacks.
    pub note: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { warm: 2, tell_firewalls: true, bus: None, note: None }
    }
}

/// The network of this host.
#[derive(Debug)]
pub struct Bridge {
    plan: Plan,
    config: Config,
    records: Records,
    /// One change at a time.
    state: Mutex<State>,
    /// Opened before anything is looked at, so that no change in between is missed.
    watch: OnceLock<Watch>,
    warm: Arc<Warm>,
}

#[derive(Debug, Default)]
struct State {
    /// `ensure` has been here.
    up: bool,
    /// Nothing that we rely on has changed since.
    whole: bool,
    rules: Applied,
    /// What was asked for, to be given back when it is lost.
    published: BTreeMap<(Protocol, SocketAddrV4), Publication>,
    notes: Vec<String>,
}

impl Bridge {
    pub fn new(plan: Plan, config: Config, records: Records) -> Self {
        let warm = Arc::new(Warm::new(plan.bridge.clone(), config.warm));
        Bridge { plan, config, records, state: Mutex::default(), watch: OnceLock::new(), warm }
    }

    fn watch(&self) -> Result<&Watch, Error> {
        if self.watch.get().is_none() {
            let watch = Watch::open(&self.plan.bridge).map_err(Error::io("cannot listen to the kernel"))?;
            let _ = self.watch.set(watch);
        }
        self.watch.get().ok_or(Error::NoNamespace)
    }

    /// Whether all is as `ensure` left it.
    fn still_whole(&self, state: &mut State) -> Result<bool, Error> {
        state.whole &= !self.watch()?.stirred();
        Ok(state.whole)
    }

    /// The VM's TAP: the one that it has, a warm one, or one that is made now.
    async fn tap(&self, vm: &VmId) -> Result<OwnedFd, Error> {
        let (links, name) = (Links::open()?, vm.tap_name());
        match links.get(&name).await? {
            Some(link) if !link.ours => return Err(Error::Foreign(name)),
            Some(_) => {
                let tap = ports::make(&links, &name, &self.plan.bridge).await?;
                links.isolated_port(&name, &self.plan.bridge).await?;
                return Ok(tap);
            }
            None => {}
        }
        let (tap, made) = match self.warm.take() {
            Some(warm) => warm,
            None => (ports::make(&links, &name, &self.plan.bridge).await?, name.clone()),
        };
        tap::keep(&tap).map_err(|e| tap::failed(&name, &e))?;
        links.rename_up(&made, &name).await?;
        Ok(tap)
    }

    async fn check(&self) -> Result<(), Refusal> {
        tools::find("nft").ok_or(Refusal::NftMissing)?;
        let no_right = |error: &dyn std::fmt::Display| Refusal::NoRight(error.to_string());
        tap::open_device().map_err(|e| tap::device_refusal(&e).unwrap_or_else(|| no_right(&e)))?;
        self.watch().map_err(|e| no_right(&e))?;
        let links = Links::open().map_err(|e| no_right(&e))?;
        self.room(&links).await.map_err(|e| match e {
            Error::Refused(refusal) => refusal,
            other => no_right(&other),
        })
    }

    /// Undoes everything; what fails stops nothing of the rest.
    async fn undo(&self) -> Result<Vec<String>, Error> {
        let mut state = self.state.lock().await;
        *state = State::default();
        self.warm.clear();
        let links = Links::open()?;
        let outcomes = [
            ports::remove_all(&links, &self.plan.bridge).await,
            nft::load(&render::remove()).await.map(|()| vec!["banger's nftables tables are gone".to_owned()]),
            firewalls::undo(&self.config, &self.plan.bridge, &self.records).await,
            forward::undo(&self.records).await,
        ];
        let (mut undone, mut failed) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(some) => undone.extend(some),
                Err(error) => failed.push(error.to_string()),
            }
        }
        if failed.is_empty() {
            return Ok(undone);
        }
        Err(Error::Op { op: "putting the host back".to_owned(), message: failed.join("; ") })
    }
}

impl Host for Bridge {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        self.check().boxed()
    }

    fn ensure(&self) -> Answer<'_, Ensured> {
        self.ensure_all().boxed()
    }

    fn lost(&self) -> Answer<'_, ()> {
        async {
            loop {
                if !self.still_whole(&mut *self.state.lock().await)? {
                    return Ok(());
                }
                self.watch()?.changed().await.map_err(Error::io("listening to the kernel"))?;
            }
        }
        .boxed()
    }

    fn add_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, OwnedFd> {
        async {
            let state = self.state.lock().await;
            if !state.up {
                return Err(Error::NoNamespace);
            }
            let tap = self.tap(vm).await?;
            self.warm.fill();
            Ok(tap)
        }
        .boxed()
    }

    fn remove_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, bool> {
        async {
            let _turn = self.state.lock().await;
            let (links, name) = (Links::open()?, vm.tap_name());
            match links.get(&name).await? {
                Some(link) if link.ours => links.remove(&name).await,
                _ => Ok(false),
            }
        }
        .boxed()
    }

    fn taps(&self) -> Answer<'_, Vec<VmId>> {
        async {
            let ours = Links::open()?.all().await?.into_iter().filter(|link| link.ours);
            Ok(ours.filter_map(|link| tap::vm_of(&link.name)).collect())
        }
        .boxed()
    }

    fn sweep<'a>(&'a self, known: &'a BTreeSet<VmId>) -> Answer<'a, Vec<String>> {
        async {
            let _turn = self.state.lock().await;
            ports::sweep(&Links::open()?, known).await
        }
        .boxed()
    }

    fn apply<'a>(&'a self, rules: &'a Ruleset) -> Answer<'a, ()> {
        async {
            let mut state = self.state.lock().await;
            if !state.up {
                return Err(Error::NoNamespace);
            }
            state.rules.apply(rules, &self.plan, async |text| nft::load(&text).await).await
        }
        .boxed()
    }

    /// The rules alone do it: guests' addresses are the host's to reach.
    fn publish<'a>(&'a self, publication: &'a Publication) -> Answer<'a, ()> {
        async {
            let mut state = self.state.lock().await;
            if !state.up {
                return Err(Error::Uplink("the bridge is not there; it must be made first".to_owned()));
            }
            state.published.insert((publication.protocol, publication.outside), *publication);
            Ok(())
        }
        .boxed()
    }

    fn unpublish(&self, protocol: Protocol, outside: SocketAddrV4) -> Answer<'_, bool> {
        async move { Ok(self.state.lock().await.published.remove(&(protocol, outside)).is_some()) }.boxed()
    }

    fn published(&self) -> Answer<'_, Vec<(Protocol, SocketAddrV4)>> {
        async { Ok(self.state.lock().await.published.keys().copied().collect()) }.boxed()
    }

    fn down(&self) -> Answer<'_, Vec<String>> {
        self.undo().boxed()
    }
}
