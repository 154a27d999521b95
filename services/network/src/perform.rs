//! The network's effects: one at a time, always towards the newest rules, each safe to repeat.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use banger_bus::Records;
use banger_bus::effects::blocking;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use tokio::sync::{Mutex, watch};

use crate::host::{Error as HostError, Host, address, resolver};
use crate::plan::Uplink;
use crate::record::{Last, LeaseRecord};
use crate::render::{Guest, Publication, Ruleset};
use crate::table::{guest, publications};

impl From<HostError> for Error {
    fn from(error: HostError) -> Error {
        let kind = match &error {
            HostError::Refused(_) => Kind::Unavailable,
            HostError::PortTaken(_) => Kind::InUse,
            HostError::PortPrivileged(_) => Kind::NotAuthorized,
            HostError::Timeout { .. } => Kind::Timeout,
            HostError::NoNamespace => Kind::Gone,
            HostError::Foreign(_) => Kind::InUse,
            _ => Kind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

/// What works on the host. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Effects {
    host: Arc<dyn Host>,
    records: Records,
    /// The newest rules, as the actor wants them.
    rules: Arc<watch::Sender<Ruleset>>,
    /// What the network lacks, as it was last found.
    notes: Arc<watch::Sender<Vec<String>>>,
    /// Changes of the host are made one after the other.
    turn: Arc<Mutex<Turn>>,
}

/// Guests without a device that the rules may go on to know.
const DEPARTED: usize = 64;

#[derive(Debug, Default)]
struct Turn {
    /// The host was put back for good: whoever still starts a VM would have it all made again behind the uninstaller's
    /// back.
    over: bool,
    /// Guests whose devices are gone, so that no packet is theirs. The rules know them until they are loaded anew for
    /// another reason: to take them out is work that every guest would wait for ([`crate::render::addition`]).
    departed: Vec<Guest>,
}

impl Turn {
    /// These rules, with those of the departed that nobody has the place of.
    fn with_departed(&mut self, mut rules: Ruleset) -> Ruleset {
        let succeeds = |new: &Guest, gone: &Guest| new.vm == gone.vm || new.address == gone.address;
        self.departed.retain(|gone| !rules.guests.iter().any(|new| succeeds(new, gone)));
        if self.departed.len() > DEPARTED {
            self.departed.clear();
        }
        rules.guests.extend(self.departed.iter().cloned());
        rules
    }
}

impl Effects {
    pub(crate) fn new(host: Arc<dyn Host>, records: Records, rules: Ruleset) -> Self {
        Effects {
            host,
            records,
            rules: Arc::new(watch::Sender::new(rules)),
            notes: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// What is to hold from now on; applied by the next effect.
    pub(crate) fn want(&self, rules: Ruleset) {
        self.rules.send_replace(rules);
    }

    /// Why VMs can have no network here, or nothing.
    pub(crate) async fn probe(&self) -> String {
        match self.host.probe().await {
            Ok(()) => String::new(),
            Err(refusal) => format!("{refusal}. {}", refusal.cure()),
        }
    }

    /// What the network lacks.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    pub(crate) async fn record(&self, vm: VmId, lease: LeaseRecord, last: Option<Last>) -> Result<()> {
        if let Some(last) = last {
            self.records.put("last", &last).await?;
        }
        self.records.put(vm.as_str(), &lease).await
    }

    /// Brings about namespace, uplink and bridge, and the newest rules in them.
    async fn apply(&self, turn: &mut Turn) -> Result<()> {
        let ensured = self.host.ensure().await?;
        self.notes.send_if_modified(|notes| {
            let changed = *notes != ensured.notes;
            if changed {
                ensured.notes.iter().for_each(|note| tracing::warn!(note, "the VM network lacks something"));
                notes.clone_from(&ensured.notes);
            }
            changed
        });
        for mended in &ensured.mended {
            tracing::warn!(mended, "put back");
        }
        if ensured.taps_are_dead() {
            tracing::warn!("the network had to be made anew: VMs that ran before have none until they are restarted");
        }
        for (publication, error) in &ensured.lost {
            tracing::warn!(?publication, %error, "a published port did not come back");
        }
        let mut rules = self.rules.borrow().clone();
        match self.host.plan().uplink {
            Uplink::Slirp => rules.host = blocking(|| address::of_this_host().map_err(Error::internal)).await?,
            Uplink::Host => {
                rules.resolver = match self.host.plan().resolver {
                    Some(set) => Some(set),
                    None => blocking(|| Ok(resolver::of_this_host())).await?,
                }
            }
        }
        Ok(self.host.apply(&turn.with_departed(rules)).await?)
    }

    /// Makes the VM's TAP, or takes the one that is there, and publishes its ports.
    pub(crate) async fn open(self, vm: VmId, lease: LeaseRecord) -> Result<OwnedFd> {
        let mut turn = self.turn.lock().await;
        if turn.over {
            let message = "the VM network was taken away for the end of the installation: if banger is to go on, \
                           'sudo systemctl restart banger-network' brings it back";
            return Err(Error::new(Kind::Gone, message));
        }
        self.record(vm.clone(), lease.clone(), None).await?;
        self.apply(&mut turn).await?;
        let tap = self.host.add_tap(&vm).await?;
        for publication in publications(&lease) {
            self.publish(publication).await?;
        }
        Ok(tap)
    }

    async fn publish(&self, publication: Publication) -> Result<()> {
        self.host.unpublish(publication.protocol, publication.outside).await?;
        Ok(self.host.publish(&publication).await?)
    }

    /// Brings a change of an open VM's lease about at once.
    pub(crate) async fn change(self, vm: VmId, lease: LeaseRecord) -> Result<()> {
        let open = lease.open;
        self.record(vm, lease, None).await?;
        let mut turn = self.turn.lock().await;
        if open { self.apply(&mut turn).await } else { Ok(()) }
    }

    /// Removes what an earlier life of the service made and nobody knows any more.
    pub(crate) async fn sweep(self, known: BTreeSet<VmId>) -> Result<()> {
        let _turn = self.turn.lock().await;
        for found in self.host.sweep(&known).await? {
            tracing::warn!(found, "found at start");
        }
        Ok(())
    }

    /// Takes the VM's TAP and ports away. What is not there is fine.
    pub(crate) async fn close(self, vm: VmId, lease: LeaseRecord) -> Result<()> {
        self.record(vm.clone(), lease.clone(), None).await?;
        let mut turn = self.turn.lock().await;
        self.unpublish(&lease).await?;
        self.remove_tap(&mut turn, &vm, &lease).await
    }

    async fn unpublish(&self, lease: &LeaseRecord) -> Result<()> {
        for publication in publications(lease) {
            gone(self.host.unpublish(publication.protocol, publication.outside).await)?;
        }
        Ok(())
    }

    async fn remove_tap(&self, turn: &mut Turn, vm: &VmId, lease: &LeaseRecord) -> Result<()> {
        gone(self.host.remove_tap(vm).await)?;
        turn.departed.push(guest(vm, lease));
        Ok(())
    }

    /// Ends a lease: ports first, then its record. Its TAP goes by [`Effects::leave`]; one that stays is of no VM that is
    /// known, and is swept.
    pub(crate) async fn release(self, vm: VmId, lease: LeaseRecord) -> Result<()> {
        if lease.open && !lease.ports.is_empty() {
            let _turn = self.turn.lock().await;
            self.unpublish(&lease).await?;
        }
        self.records.delete::<LeaseRecord>(vm.as_str()).await
    }

    /// Removes the TAP of a lease that has ended, for which the kernel takes its time and nobody has to wait.
    pub(crate) async fn leave(self, vm: VmId, lease: LeaseRecord) -> Result<()> {
        let mut turn = self.turn.lock().await;
        let again = self.rules.borrow().guests.iter().any(|guest| guest.vm == vm);
        if again { Ok(()) } else { self.remove_tap(&mut turn, &vm, &lease).await }
    }

    /// Makes again what died, if a VM needs it.
    pub(crate) async fn mend(self) -> Result<()> {
        let mut turn = self.turn.lock().await;
        let rules = self.rules.borrow().clone();
        if rules.guests.is_empty() {
            return Ok(());
        }
        self.apply(&mut turn).await?;
        // What is published already stays; what an uplink lost while nobody remembered it comes back.
        for publication in rules.publications {
            if let Err(error) = self.host.publish(&publication).await {
                tracing::warn!(?publication, %error, "a published port did not come back");
            }
        }
        Ok(())
    }

    /// Comes back when something that VMs need has died.
    pub(crate) async fn lost(self) -> Result<()> {
        Ok(self.host.lost().await?)
    }

    /// Removes everything, puts back what was changed for it, and makes nothing any more; refused while a VM needs it.
    pub(crate) async fn retract(self) -> Result<Vec<String>> {
        let mut turn = self.turn.lock().await;
        let open = self.rules.borrow().guests.len();
        if open > 0 {
            let message = format!("{open} VMs have a network: stop them first ('banger vm stop')");
            return Err(Error::new(Kind::InUse, message));
        }
        turn.over = true;
        Ok(self.host.down().await?)
    }

    /// Removes everything when no VM has a network.
    pub(crate) async fn down_if_unused(&self) {
        let _turn = self.turn.lock().await;
        if self.rules.borrow().guests.is_empty()
            && let Err(error) = self.host.down().await
        {
            tracing::warn!(%error, "the network stays");
        }
    }
}

/// The outcome of removing something: no namespace holds nothing of it either.
fn gone<T>(outcome: Result<T, HostError>) -> Result<()> {
    match outcome.map_err(Error::from) {
        Err(error) if !matches!(error.kind, Kind::Gone | Kind::Unavailable) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Fake;
    use crate::render::Reach;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn what_was_put_back_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("network.redb")).unwrap();
        let host = Arc::new(Fake::default());
        let effects = Effects::new(host.clone(), records.clone(), Ruleset::default());
        let vm: VmId = "aaaaaaaaaa".parse().unwrap();
        let address = Ipv4Addr::new(172, 16, 0, 2);
        let lease = LeaseRecord { address, host_address: None, ports: vec![], open: true, nat: true };
        effects.clone().open(vm.clone(), lease.clone()).await.unwrap();

        let guest = Guest { vm: vm.clone(), mac: [2, 0, 0, 0, 0, 2], address, reach: Reach::Internet };
        effects.want(Ruleset { guests: vec![guest], ..Ruleset::default() });
        assert_eq!(effects.clone().retract().await.unwrap_err().kind, Kind::InUse);
        effects.clone().open(vm.clone(), lease.clone()).await.unwrap();

        effects.want(Ruleset::default());
        effects.clone().release(vm.clone(), lease.clone()).await.unwrap();
        effects.clone().leave(vm.clone(), lease.clone()).await.unwrap();
        effects.clone().retract().await.unwrap();
        let refused = effects.clone().open(vm.clone(), lease).await.unwrap_err();
        assert!(refused.kind == Kind::Gone && refused.message.contains("restart banger-network"), "{refused}");
        assert!(!host.state().namespace && records.all::<LeaseRecord>().await.unwrap().is_empty());
        effects.retract().await.unwrap();
    }

    #[tokio::test]
    async fn who_has_left_stays_in_the_rules_until_somebody_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("network.redb")).unwrap();
        let host = Arc::new(Fake::default());
        let effects = Effects::new(host.clone(), records, Ruleset::default());
        let lease = |last| LeaseRecord {
            address: Ipv4Addr::new(172, 16, 0, last),
            host_address: None,
            ports: vec![],
            open: true,
            nat: true,
        };
        let comes = async |name: &str, last| {
            let vm: VmId = name.parse().unwrap();
            effects.want(Ruleset { guests: vec![guest(&vm, &lease(last))], ..Ruleset::default() });
            effects.clone().open(vm, lease(last)).await.unwrap();
            let rules = host.state().rules.clone().unwrap_or_default();
            rules.guests.iter().map(|guest| guest.vm.to_string()).collect::<Vec<_>>()
        };
        let leaves = async |name: &str, last| {
            effects.want(Ruleset::default());
            effects.clone().release(name.parse().unwrap(), lease(last)).await.unwrap();
            effects.clone().leave(name.parse().unwrap(), lease(last)).await.unwrap();
        };
        assert_eq!(comes("aaaaaaaaaa", 2).await, ["aaaaaaaaaa"]);
        leaves("aaaaaaaaaa", 2).await;
        assert!(host.state().taps.is_empty());
        assert_eq!(comes("bbbbbbbbbb", 3).await, ["bbbbbbbbbb", "aaaaaaaaaa"]);
        leaves("bbbbbbbbbb", 3).await;
        assert_eq!(comes("cccccccccc", 2).await, ["cccccccccc", "bbbbbbbbbb"]);
        // One that is wanted again in the meantime is not taken away.
        effects.clone().leave("cccccccccc".parse().unwrap(), lease(2)).await.unwrap();
        assert_eq!(host.state().taps.len(), 1);
        leaves("cccccccccc", 2).await;
        // With the two that are remembered one more than there may be.
        for last in 10..9 + u8::try_from(DEPARTED).unwrap() {
            let vm = VmId::from_random([last; 10]).to_string();
            comes(&vm, last).await;
            leaves(&vm, last).await;
        }
        assert_eq!(comes("dddddddddd", 4).await, ["dddddddddd"], "too many: all are forgotten at once");
    }
}
