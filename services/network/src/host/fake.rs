//! A host that is only remembered, for the tests of the service. Behaves as [`super::rootless`] does, and fails on
//! demand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_schemas::VmId;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use tokio::sync::Notify;

use super::{Answer, Change, Ensured, Error, Host, Refusal};
use crate::plan::Plan;
use crate::render::{Protocol, Publication, Ruleset};

/// What there is.
#[derive(Debug, Default)]
pub struct State {
    pub refusal: Option<Refusal>,
    pub namespace: bool,
    pub uplink: bool,
    pub taps: BTreeSet<VmId>,
    pub rules: Option<Ruleset>,
    pub forwards: BTreeSet<(Protocol, SocketAddrV4)>,
    /// The next call fails so.
    pub fail: Option<Error>,
    /// There was a namespace, an uplink before.
    before: (bool, bool),
    published: BTreeMap<(Protocol, SocketAddrV4), Publication>,
}

/// The fake host.
#[derive(Debug)]
pub struct Fake {
    plan: Plan,
    state: Mutex<State>,
    killed: Notify,
}

impl Default for Fake {
    fn default() -> Self {
        Fake { plan: Plan::rootless(), state: Mutex::default(), killed: Notify::default() }
    }
}

impl Fake {
    /// To look at, and to break.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The holder dies, and all that lives in its namespace.
    pub fn kill_namespace(&self) {
        let mut state = self.state();
        state.namespace = false;
        state.uplink = false;
        state.taps.clear();
        state.forwards.clear();
        self.killed.notify_waiters();
    }

    /// The uplink dies.
    pub fn kill_uplink(&self) {
        let mut state = self.state();
        state.uplink = false;
        state.forwards.clear();
        self.killed.notify_waiters();
    }

    fn answer<T: Send + 'static>(&self, act: impl FnOnce(&mut State) -> Result<T, Error>) -> Answer<'static, T> {
        let mut state = self.state();
        let outcome = state.fail.take().map_or_else(|| act(&mut state), Err);
        ready(outcome).boxed()
    }
}

impl State {
    fn inside(&self) -> Result<(), Error> {
        if self.namespace { Ok(()) } else { Err(Error::NoNamespace) }
    }

    fn ensure(&mut self) -> Result<Ensured, Error> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().into());
        }
        let change = |there: bool, before: bool| match (there, before) {
            (true, _) => Change::Kept,
            (false, true) => Change::Remade,
            (false, false) => Change::Made,
        };
        let namespace = change(self.namespace, self.before.0);
        let uplink = change(self.uplink, self.before.1);
        let mut returned = Vec::new();
        if uplink != Change::Kept {
            returned.extend(self.published.values().copied());
            self.forwards.extend(self.published.keys());
        }
        if namespace != Change::Kept && self.rules.is_none() {
            self.rules = Some(Ruleset::default());
        }
        (self.namespace, self.uplink, self.before) = (true, true, (true, true));
        Ok(Ensured { namespace, uplink, returned, ..Ensured::default() })
    }
}

impl Host for Fake {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        ready(self.state().refusal.clone().map_or(Ok(()), Err)).boxed()
    }

    fn ensure(&self) -> Answer<'_, Ensured> {
        self.answer(State::ensure)
    }

    fn lost(&self) -> Answer<'_, ()> {
        async {
            let killed = self.killed.notified();
            let whole = { self.state().uplink };
            if whole {
                killed.await;
            }
            Ok(())
        }
        .boxed()
    }

    fn add_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, OwnedFd> {
        self.answer(|state| {
            state.inside()?;
            let stand_in = File::open("/dev/null").map_err(Error::io("/dev/null"))?;
            state.taps.insert(vm.clone());
            Ok(stand_in.into())
        })
    }

    fn remove_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, bool> {
        self.answer(|state| Ok(state.taps.remove(vm)))
    }

    fn taps(&self) -> Answer<'_, Vec<VmId>> {
        self.answer(|state| Ok(state.taps.iter().cloned().collect()))
    }

    fn sweep<'a>(&'a self, known: &'a BTreeSet<VmId>) -> Answer<'a, Vec<String>> {
        self.answer(|state| {
            let (kept, gone) = std::mem::take(&mut state.taps).into_iter().partition(|vm| known.contains(vm));
            state.taps = kept;
            Ok(BTreeSet::into_iter(gone).map(|vm| format!("the TAP of VM {vm}")).collect())
        })
    }

    fn apply<'a>(&'a self, rules: &'a Ruleset) -> Answer<'a, ()> {
        self.answer(|state| {
            state.inside()?;
            state.rules = Some(rules.clone());
            Ok(())
        })
    }

    fn publish<'a>(&'a self, publication: &'a Publication) -> Answer<'a, ()> {
        self.answer(|state| {
            if !state.uplink {
                return Err(Error::Uplink("no answer at its socket".to_owned()));
            }
            let at = (publication.protocol, publication.outside);
            state.published.insert(at, *publication);
            state.forwards.insert(at);
            Ok(())
        })
    }

    fn unpublish(&self, protocol: Protocol, outside: SocketAddrV4) -> Answer<'_, bool> {
        self.answer(|state| {
            state.published.remove(&(protocol, outside));
            Ok(state.forwards.remove(&(protocol, outside)))
        })
    }

    fn published(&self) -> Answer<'_, Vec<(Protocol, SocketAddrV4)>> {
        self.answer(|state| Ok(state.forwards.iter().copied().collect()))
    }

    fn down(&self) -> Answer<'_, Vec<String>> {
        self.answer(|state| {
            *state = State { refusal: state.refusal.take(), ..State::default() };
            Ok(Vec::new())
        })
    }
}
