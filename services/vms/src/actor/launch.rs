//! Getting a VM up: everything opened, a keeper started, a template's guest or none, and what is done when that guest is
//! refused.

use std::os::fd::OwnedFd;

use banger_bus::process::Process;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::{Backend, Launch};
use banger_schemas::network::Lease;
use tokio::sync::OwnedSemaphorePermit;

use super::perform::{Outcome, Tools};
use crate::host::backend::Choice;
use crate::host::room;
use crate::host::runner::{Haste, Limits};
use crate::record::{Disks, Intent, Started, VmRecord};
use crate::templates::{Guest, Key, Program};

/// What a launch came to.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) outcome: Outcome,
    /// The template that would have served it.
    pub(super) key: Option<Key>,
    pub(super) turn: Turn,
}

/// A place among those who come up at once. To come up is work for a processor, so more at once would only make the first as
/// late as the last.
type Turn = OwnedSemaphorePermit;

/// Everything that a VMM is started with, open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) launch: Launch,
    pub(crate) fds: Vec<OwnedFd>,
    /// The catalog's word for what is booted.
    pub(crate) contents: String,
    pub(crate) lease: Option<Lease>,
    notes: Vec<String>,
}

impl Tools {
    /// Why a VM goes on from no template, whatever there is.
    pub(super) fn no_template_for(&self, record: &VmRecord, choice: &Choice) -> Option<&'static str> {
        match choice.backend {
            _ if record.cold => Some("asked for"),
            _ if self.templates.off() => Some("templates are off"),
            Backend::Firecracker => Some("Firecracker's guests are not frozen yet"),
            Backend::QemuTcg | Backend::QemuKvm => None,
        }
    }

    /// What a template for the VM has to have in common with it.
    pub(crate) fn key(&self, record: &VmRecord, contents: &str, choice: &Choice) -> Result<Key> {
        Ok(Key {
            contents: contents.to_owned(),
            backend: choice.backend.as_str().to_owned(),
            vmm: Program::at(&choice.vmm)?,
            keeper: Program::at(&self.keeper)?,
            vcpus: record.vcpus,
            memory_mib: record.memory_mib,
            disk_mib: record.disk_mib,
            network: record.network,
        })
    }

    /// Opens everything, starts the keeper and hands it all over. `why_not`: why its template is not to be tried, if it was
    /// in vain.
    pub(super) async fn launch(self, mut record: VmRecord, why_not: Option<String>) -> Result<Launched> {
        let turn = self.turns.clone().acquire_owned().await.map_err(Error::internal)?;
        // Those whose turn was before have what they take by now.
        if let Some(why) = room::too_short_for_a_machine(u64::from(record.memory_mib) << 20) {
            return Err(Error::new(Kind::NoSpace, why));
        }
        let choice = self.backends.choose(record.wanted).await?;
        // The keeper comes up meanwhile.
        let (opened, keeper) = tokio::join!(self.open(&record, &choice), self.keeper_of(&record, Haste::Waited));
        record.keeper = keeper?;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                drop(self.keepers.runner.kill(&record.id, record.keeper.as_ref()).await);
                return Err(error);
            }
        };
        record.lease = opened.lease.clone();
        let disks = std::mem::replace(&mut record.disks, Disks::Used);
        let barred = self.no_template_for(&record, &choice);
        // Without the device that it was to have it is another machine.
        let connected = opened.launch.tap == record.network;
        let key =
            if barred.is_none() && connected { Some(self.key(&record, &opened.contents, &choice)?) } else { None };
        let guest = match (&key, barred.map(str::to_owned).or(why_not)) {
            (_, Some(why)) => Err(why),
            (None, None) => Err("it has no network device".to_owned()),
            (Some(key), None) => self.guest(key, &disks).await,
        };
        record.started = Some(Started::of(guest.as_ref().err()));
        record.backend = Some(choice.backend.as_str().to_owned());
        record.backend_reason = Some(choice.reason.clone());
        self.intend(&mut record, Intent::Run).await?;
        let Opened { launch, fds, notes, .. } = opened;
        let thawed = guest.is_ok();
        match self.keepers.launch(&record.id, launch, guest.ok(), fds).await {
            Err(error) if thawed && error.kind == Kind::Guest => {
                self.launch_cold(&mut record, &choice, key.as_ref(), &error).await?;
            }
            launched => launched?,
        }
        Ok(Launched { outcome: Outcome { record, notes }, key, turn })
    }

    /// A template's guest, for the VM that has its disks.
    async fn guest(&self, key: &Key, disks: &Disks) -> Result<Guest, String> {
        match disks {
            Disks::Fresh(why) => Err(why.clone()),
            Disks::Used => Err("its disks have been used".to_owned()),
            Disks::Copied(name) if *name != key.name() => Err("what its template was made of has changed".to_owned()),
            Disks::Copied(_) => self.templates.guest(key).await.map_err(|error| error.message),
        }
    }

    /// Boots a VM whose template its keeper has refused. Its disks are whole: the guest was frozen with nothing in hand.
    async fn launch_cold(
        &self,
        record: &mut VmRecord,
        choice: &Choice,
        key: Option<&Key>,
        refusal: &Error,
    ) -> Result<()> {
        if let Some(key) = key {
            self.templates.condemn(key, &refusal.message).await;
        }
        record.started = Some(Started::of(Some(&refusal.message)));
        self.intend(record, Intent::Run).await?;
        let Opened { launch, fds, .. } = self.open(record, choice).await?;
        self.keepers.launch(&record.id, launch, None, fds).await
    }

    /// Starts a keeper. One that gets no launch ends by itself, so it may be there before it is recorded.
    pub(crate) async fn keeper_of(&self, record: &VmRecord, haste: Haste) -> Result<Option<Process>> {
        let limits = Limits { vcpus: record.vcpus, memory_mib: record.memory_mib, haste };
        self.keepers.runner.start(&record.id, limits).await
    }

    /// Opens everything that a VMM is started with.
    pub(crate) async fn open(&self, record: &VmRecord, choice: &Choice) -> Result<Opened> {
        let (image, disks, network) =
            tokio::join!(self.peers.open_image(&record.id), self.peers.open_disks(&record.id), self.network(record));
        let (image, contents) = image?;
        let mut fds: Vec<OwnedFd> = Vec::from(image);
        fds.extend(disks?);
        let mut notes = Vec::new();
        let (lease, tap) = match network {
            Ok(network) => network.unzip(),
            Err(why) => {
                notes.push(format!("no network: {why}"));
                (None, None)
            }
        };
        let launch = Launch {
            backend: choice.backend,
            vmm: choice.vmm.to_string_lossy().into_owned(),
            vcpus: record.vcpus,
            memory_mib: record.memory_mib,
            mac: lease.as_ref().map(|lease| lease.mac),
            tap: tap.is_some(),
            leased: record.client.is_some(),
            keeps_console: true,
            volatile: record.client.is_some(),
        };
        fds.extend(tap);
        if let Some(owner) = &record.client {
            fds.push(owner.process.open().ok_or_else(|| Error::new(Kind::Gone, "its client has gone"))?);
        }
        fds.push(self.keepers.console_file(&record.id)?);
        // The guest is told of no address that it has no device for.
        Ok(Opened { launch, fds, contents, lease, notes })
    }

    /// The VM's address and device, if it shall have them; or why it cannot.
    async fn network(&self, record: &VmRecord) -> Result<Option<(Lease, OwnedFd)>, String> {
        if !record.network {
            return Ok(None);
        }
        let connected = async {
            if record.lease.is_none()
                && let Err(refusal) = self.peers.reserve(record).await?
            {
                return Ok(Err(refusal));
            }
            self.peers.open_tap(&record.id).await.map(Ok)
        };
        connected.await.unwrap_or_else(|error: Error| Err(error.message)).map(Some)
    }
}
