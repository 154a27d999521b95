//! Makes a template: a machine that is nobody's boots, gets ready for an identity, and is frozen in place of getting one.
//!
//! It has no record. It is leased to this very process, so it ends with it, and what peers hold for it belongs to no
//! record and is swept.

use std::os::fd::OwnedFd;
use std::time::Duration;

use banger_bus::effects::{deadline, within};
use banger_bus::process::Process;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::{Memory, Phase, Request};

use super::{Guest, Key, Parts, memory};
use crate::actor::Tools;
use crate::guest;
use crate::host::room;
use crate::host::runner::Haste;
use crate::record::{Client, Disks, Intent, VmRecord};

/// From nothing to a frozen guest, and the variable that says another time, for tests.
const PATIENCE: Duration = Duration::from_secs(180);
const PATIENCE_VARIABLE: &str = "BANGER_TEMPLATE_DEADLINE_SECONDS";
/// The kind of the job, for who wants to know why the host is busy.
const JOB: &str = "template";

/// Has the template of a key made, unless it is there or being made, or there is no room for it.
pub(crate) fn want(tools: &Tools, like: &VmRecord, key: Key) {
    let maker = match maker(like) {
        Ok(maker) => maker,
        Err(error) => return tracing::warn!(%error, "no template is made"),
    };
    let Some(making) = tools.templates.begin(&key, &maker.id) else { return };
    let tools = tools.clone();
    tokio::spawn(async move {
        let _making = making;
        if tools.templates.exists(&key) {
            return;
        }
        if let Some(why) = room::too_short_for_a_template(tools.templates.folder(), u64::from(key.memory_mib) << 20) {
            tracing::info!(why, "no template is made");
            return;
        }
        let job = match tools.service.jobs().create(JOB, nix::unistd::getuid().as_raw()).await {
            Ok(job) => job,
            Err(error) => return tracing::warn!(%error, "no template is made"),
        };
        let patience = deadline(PATIENCE_VARIABLE, PATIENCE);
        let made = within(JOB, patience, make(&tools, maker, &key)).await;
        if let Err(error) = &made {
            tools.templates.has_failed(&key);
            tracing::warn!(%error, "no template was made");
        }
        job.finish(made.map(|()| Default::default()));
    });
}

async fn make(tools: &Tools, maker: VmRecord, key: &Key) -> Result<()> {
    // Given back by who drops this too: a deadline, for one.
    let back = Back { tools: tools.clone(), maker: Some(maker.clone()) };
    let parts = freeze(tools, maker, key).await;
    back.give().await;
    tools.templates.keep(key.clone(), parts?).await
}

/// A machine of the same build as another, and nobody's.
fn maker(like: &VmRecord) -> Result<VmRecord> {
    let process = Process::myself().map_err(Error::internal)?;
    Ok(VmRecord {
        id: VmId::from_random(rand::random()),
        ports: Vec::new(),
        token: None,
        machine_id: [0; 16],
        host_key: None,
        intent: Intent::Create,
        lease: None,
        client: Some(Client { bus_name: String::new(), process }),
        disks: Disks::Fresh(String::new()),
        keeper: None,
        ..like.clone()
    })
}

async fn freeze(tools: &Tools, mut maker: VmRecord, key: &Key) -> Result<Parts> {
    tools.peers.bind_image(&maker).await?;
    tools.peers.create_disks(&maker).await?;
    let choice = tools.backends.choose(maker.wanted).await?;
    let opened = tools.open(&maker, &choice).await?;
    maker.lease = opened.lease.clone();
    if tools.key(&maker, &opened.contents, &choice)? != *key {
        return Err(Error::new(Kind::Gone, "what it is to be made of has changed"));
    }
    let failed = |error: std::io::Error| Error::internal(format!("no memory for a template: {error}"));
    let ram = memory::fresh(u64::from(maker.memory_mib) << 20).map_err(failed)?;
    let devices = memory::fresh(0).map_err(failed)?;
    let fds = [OwnedFd::from(ram.try_clone().map_err(failed)?), devices.try_clone().map_err(failed)?.into()];
    maker.keeper = tools.keeper_of(&maker, Haste::None).await?;
    let guest = Guest { memory: Memory::Fresh, fds, console: String::new() };
    tools.keepers.launch(&maker.id, opened.launch, Some(guest), opened.fds).await?;
    agent_is_up(tools, &maker.id).await?;
    guest::prepare(tools.keepers.connect(&maker.id).await?.stream(&Request::Open).await?).await?;
    let console = tools.console_so_far(&maker.id).await;
    let origin = tools.keepers.connect(&maker.id).await?.freeze().await?;
    let disks = tools.peers.open_disks(&maker.id).await?.map(std::fs::File::from);
    Ok(Parts { image: maker.image.to_string(), kernel: maker.kernel.to_string(), console, origin, ram, devices, disks })
}

async fn agent_is_up(tools: &Tools, maker: &VmId) -> Result<()> {
    let keeper = tools.keepers.connect(maker).await?;
    keeper.watch().await?;
    while let Some(status) = keeper.next_status().await? {
        match status.phase {
            Phase::Agent => return Ok(()),
            Phase::Exited(exit) => return Err(tools.ended(maker, &exit, true).await),
            Phase::Idle | Phase::Booting | Phase::Kernel => {}
        }
    }
    Err(Error::new(Kind::Gone, "its keeper has ended"))
}

/// What a maker has used, given back in any case.
struct Back {
    tools: Tools,
    maker: Option<VmRecord>,
}

impl Back {
    async fn give(mut self) {
        if let Some(maker) = self.maker.take() {
            give_back(&self.tools, &maker).await;
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if let Some(maker) = self.maker.take() {
            let tools = self.tools.clone();
            tokio::spawn(async move { give_back(&tools, &maker).await });
        }
    }
}

async fn give_back(tools: &Tools, maker: &VmRecord) {
    if let Ok(keeper) = tools.keepers.connect(&maker.id).await
        && let Err(error) = keeper.ask(&Request::Kill, Vec::new()).await
    {
        tracing::debug!(%error, "a maker's keeper is ending by itself");
    }
    tools.keeper_ends(maker, None).await;
    let given = async {
        tools.peers.release(&maker.id).await?;
        tools.keepers.forget(&maker.id)
    };
    if let Err(error) = given.await {
        tracing::warn!(maker = %maker.id, %error, "not all of a maker is given back: the next start does it");
    }
}
