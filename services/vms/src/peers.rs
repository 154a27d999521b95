//! What the supervisor asks of its peers. Each call has a deadline; waiting for a build has none. All of it may be asked
//! twice, and is, where a peer goes away with its answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use banger_bus::again_unless_lost;
use banger_bus::effects::within;
use banger_bus::jobs::follow;
use banger_bus::trace::options;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::{JobProxy, Progress};
use banger_schemas::network::Lease;
use banger_schemas::options::{Dict, DictBuilder};
use banger_schemas::{images, network, storage};
use tokio::sync::Semaphore;
use zbus::Connection;
use zbus::wire::{Fd, OwnedObjectPath};

use crate::record::VmRecord;

/// Peers answer in milliseconds; mke2fs of a first template, or the first start of an uplink, in less than this.
const ANSWER: Duration = Duration::from_secs(30);

/// Questions that are open at once; others wait their turn. dbus-daemon lets a connection have 128, and answers the next one
/// with an error (`max_replies_per_connection`); one that nobody waits for any more is open until its answer comes.
const OPEN: usize = 48;
/// The same of pulls that are waited for, which may take minutes.
const PULLS: usize = 32;

/// The peers, found on the bus when they are needed.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    connection: Connection,
    turns: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
}

/// A peer that has died as often as this over one question is not asked it any more.
const LOST: u32 = 3;

/// Calls a peer's method within the deadline, errors becoming ours.
macro_rules! call {
    ($me:ident, $what:expr, $call:expr) => {
        within($what, ANSWER, async {
            let _turn = $me.turns.acquire().await.map_err(Error::internal)?;
            Ok(again_unless_lost(LOST, || $call).await?)
        })
        .await
    };
}

impl Peers {
    pub(crate) fn new(connection: Connection) -> Self {
        let turns = |most| Arc::new(Semaphore::new(most));
        Peers { connection, turns: turns(OPEN), pulls: turns(PULLS) }
    }

    async fn images(&self) -> Result<images::ManagerProxy<'static>> {
        Ok(images::ManagerProxy::new(&self.connection).await?)
    }

    async fn storage(&self) -> Result<storage::ManagerProxy<'static>> {
        Ok(storage::ManagerProxy::new(&self.connection).await?)
    }

    async fn network(&self) -> Result<network::ManagerProxy<'static>> {
        Ok(network::ManagerProxy::new(&self.connection).await?)
    }

    /// Has image and kernel fetched or built if need be.
    pub(crate) async fn pull_image(&self, vm: &VmRecord, mut progress: impl FnMut(Progress)) -> Result<()> {
        let images = self.images().await?;
        let (image, kernel) = (vm.image.as_str(), vm.kernel.as_str());
        let job = call!(self, "asking for the kernel", images.pull_kernel(kernel, options()))?;
        self.pulled(job, &mut progress).await?;
        let job = call!(self, "asking for the image", images.pull(image, options()))?;
        self.pulled(job, &mut progress).await
    }

    async fn pulled(&self, job: OwnedObjectPath, progress: &mut impl FnMut(Progress)) -> Result<()> {
        let pull = Pull::new(&self.connection, job);
        let _turn = self.pulls.acquire().await.map_err(Error::internal)?;
        pull.follow(progress).await
    }

    /// Binds image and kernel to the VM. The catalog's word for what it boots.
    pub(crate) async fn bind_image(&self, vm: &VmRecord) -> Result<String> {
        let images = self.images().await?;
        let (image, kernel) = (vm.image.as_str(), vm.kernel.as_str());
        call!(self, "binding the image", images.claim(vm.id.as_str(), image, kernel, options()))
    }

    /// Kernel, initramfs, image, and the word for them.
    pub(crate) async fn open_image(&self, vm: &VmId) -> Result<([OwnedFd; 3], String)> {
        let images = self.images().await?;
        let (kernel, initramfs, image, contents) =
            call!(self, "opening the image", images.open(vm.as_str(), options()))?;
        Ok(([kernel.into(), initramfs.into(), image.into()], contents))
    }

    pub(crate) async fn create_disks(&self, vm: &VmRecord) -> Result<()> {
        let storage = self.storage().await?;
        call!(self, "making the disks", storage.create(vm.id.as_str(), vm.disk_mib, durability(vm)))
    }

    /// The same as copies of these.
    pub(crate) async fn copy_disks(&self, vm: &VmRecord, [system, work]: [OwnedFd; 2]) -> Result<()> {
        let storage = self.storage().await?;
        let copy = || storage.copy(vm.id.as_str(), Fd::from(&system), Fd::from(&work), durability(vm));
        call!(self, "copying the disks", copy())
    }

    /// System disk, work disk.
    pub(crate) async fn open_disks(&self, vm: &VmId) -> Result<[OwnedFd; 2]> {
        let storage = self.storage().await?;
        let (system, work) = call!(self, "opening the disks", storage.open(vm.as_str(), options()))?;
        Ok([system.into(), work.into()])
    }

    /// The VM's place in the network. `Ok(Err(why))`: VMs can have none here.
    pub(crate) async fn reserve(&self, vm: &VmRecord) -> Result<Result<Lease, String>> {
        let network = self.network().await?;
        let refusal = call!(self, "asking for a network", network.probe())?;
        if !refusal.is_empty() {
            return Ok(Err(refusal));
        }
        let ports: Vec<String> = vm.ports.iter().map(ToString::to_string).collect();
        let with = |options: Dict| {
            let given = DictBuilder::default().set("ports", ports.clone()).set("nat", vm.nat).build();
            options.into_iter().chain(given).collect()
        };
        let lease = call!(self, "reserving an address", network.reserve(vm.id.as_str(), with(options())))?;
        Lease::from_dict(lease).map(Ok)
    }

    /// The VM's device, and its place in the network as it is now.
    pub(crate) async fn open_tap(&self, vm: &VmId) -> Result<(Lease, OwnedFd)> {
        let network = self.network().await?;
        let (tap, lease) = call!(self, "making the network device", network.open_tap(vm.as_str(), options()))?;
        Ok((Lease::from_dict(lease)?, tap.into()))
    }

    pub(crate) async fn set_nat(&self, vm: &VmId, nat: bool) -> Result<()> {
        let network = self.network().await?;
        call!(self, "switching NAT", network.set_nat(vm.as_str(), nat, options()))
    }

    pub(crate) async fn close_tap(&self, vm: &VmId) -> Result<()> {
        let network = self.network().await?;
        call!(self, "removing the network device", network.close_tap(vm.as_str(), options()))
    }

    /// Gives back everything that peers hold for a VM. Goes through all of them, and tells the first failure.
    pub(crate) async fn release(&self, vm: &VmId) -> Result<()> {
        let network = async {
            let network = self.network().await?;
            call!(self, "releasing the address", network.release(vm.as_str(), options()))
        };
        let storage = async {
            let storage = self.storage().await?;
            call!(self, "removing the disks", storage.delete(vm.as_str(), options()))
        };
        let images = async {
            let images = self.images().await?;
            call!(self, "releasing the image", images.release(vm.as_str(), options()))
        };
        // Disks first: on a full disk they make the room that the others' records need.
        let storage = storage.await;
        let (network, images) = tokio::join!(network, images);
        storage.and(network).and(images)
    }

    /// Every VM that some peer holds something for.
    pub(crate) async fn holders(&self) -> Result<Vec<VmId>> {
        let images = self.images().await?;
        let storage = self.storage().await?;
        let network = self.network().await?;
        let mut holders = call!(self, "listing claims", images.holders())?;
        holders.extend(call!(self, "listing disks", storage.usage())?.into_iter().map(|(holder, _, _)| holder));
        holders.extend(call!(self, "listing leases", network.holders())?);
        holders.sort();
        holders.dedup();
        Ok(holders.iter().filter_map(|h| h.parse().ok()).collect())
    }
}

/// Options of what makes a VM's disks.
fn durability(vm: &VmRecord) -> Dict {
    let volatile = DictBuilder::default().set("volatile", vm.client.is_some()).build();
    options().into_iter().chain(volatile).collect()
}

/// A pull that is canceled when nobody waits for it any more. Others who want the same image keep it going.
struct Pull {
    connection: Connection,
    job: Option<OwnedObjectPath>,
}

impl Pull {
    fn new(connection: &Connection, job: OwnedObjectPath) -> Self {
        Pull { connection: connection.clone(), job: Some(job) }
    }

    async fn follow(mut self, progress: impl FnMut(Progress)) -> Result<()> {
        if let Some(job) = self.job.clone() {
            follow(&self.connection, images::NAME, job, progress).await?;
        }
        self.job = None;
        Ok(())
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let Some(job) = self.job.take() else { return };
        let connection = self.connection.clone();
        tokio::spawn(async move {
            let canceled = async {
                JobProxy::builder(&connection).destination(images::NAME).path(job).build().await?.cancel().await
            };
            if let Err(error) = canceled.await {
                tracing::debug!(%error, "a pull that nobody waits for was not canceled");
            }
        });
    }
}

/// A peer that is not there: what it holds is not known, so nothing may be concluded.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error.kind, Kind::Unavailable | Kind::Timeout)
}
