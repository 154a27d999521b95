//! The effects of a VM's life, each an async function that is safe to repeat: recovery does.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use banger_bus::process::Process;
use banger_bus::{Records, Service};
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::Progress;
use banger_schemas::keeper::{Exit, ExitCause, Phase, Request};
use banger_schemas::network::Lease;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use crate::guest::{self, Ready, tail};
use crate::host::backend::{Backends, Choice};
use crate::host::keeper::Keepers;
use crate::peers::Peers;
use crate::record::{Disks, Intent, VmRecord};
use crate::templates::Templates;

/// Lines of console that an error shows.
const CONSOLE_LINES: usize = 12;
/// Console that is read for those lines: all that a keeper remembers.
const CONSOLE_BYTES: u64 = 256 * 1024;
/// A keeper that was told to end its VMM has this long.
const KEEPER_END: Duration = Duration::from_secs(10);

/// What effects work with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) service: Service,
    pub(crate) records: Records,
    pub(crate) keepers: Keepers,
    pub(crate) backends: Backends,
    pub(crate) templates: Templates,
    pub(crate) peers: Peers,
    /// The keeper's program.
    pub(crate) keeper: PathBuf,
    /// One for each processor of the host.
    pub(crate) turns: Arc<Semaphore>,
}

/// What an effect found out about the VM.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) record: VmRecord,
    pub(super) notes: Vec<String>,
}

impl Tools {
    /// Writes what is about to be done.
    pub(super) async fn intend(&self, record: &mut VmRecord, intent: Intent) -> Result<()> {
        record.intent = intent;
        self.records.put(record.id.as_str(), record).await
    }

    /// Claims image and kernel, makes disks, reserves the address.
    pub(super) async fn make(self, mut record: VmRecord, progress: impl FnMut(Progress)) -> Result<Outcome> {
        self.intend(&mut record, Intent::Create).await?;
        let choice = self.backends.choose(record.wanted).await?;
        self.peers.pull_image(&record, progress).await?;
        let contents = self.peers.bind_image(&record).await?;
        let (disks, lease) = tokio::join!(self.make_disks(&record, &contents, &choice), self.reserve(&record));
        (record.disks, record.lease) = (disks?, lease?);
        self.intend(&mut record, Intent::Stopped).await?;
        Ok(Outcome { record, notes: Vec::new() })
    }

    async fn reserve(&self, record: &VmRecord) -> Result<Option<Lease>> {
        // One that is refused is asked for again by each launch, which says why there is none.
        if record.network { Ok(self.peers.reserve(record).await?.ok()) } else { Ok(None) }
    }

    /// Makes the disks: a template's, if there is one for the VM.
    async fn make_disks(&self, record: &VmRecord, contents: &str, choice: &Choice) -> Result<Disks> {
        let found = match self.no_template_for(record, choice) {
            // Whether there will be a network is asked meanwhile. Where there is none, the launch notices.
            None => {
                let key = self.key(record, contents, choice)?;
                self.templates.disks(&key).await.map(|disks| (key, disks)).map_err(|error| error.message)
            }
            Some(why) => Err(why.to_owned()),
        };
        match found {
            Ok((key, disks)) => self.peers.copy_disks(record, disks).await.map(|()| Disks::Copied(key.name())),
            Err(why) => self.peers.create_disks(record).await.map(|()| Disks::Fresh(why)),
        }
    }

    /// Has the VM be as its record says from now on.
    pub(super) async fn set(self, record: VmRecord) -> Result<Outcome> {
        self.records.put(record.id.as_str(), &record).await?;
        match self.peers.set_nat(&record.id, record.nat).await {
            // It has no lease, or not yet: it will get one like this.
            Err(error) if error.kind == Kind::NotFound => {}
            set => set?,
        }
        Ok(Outcome { record, notes: Vec::new() })
    }

    /// Tells the agent who it is.
    pub(super) async fn identify(self, record: VmRecord) -> Result<Ready> {
        let stream = self.keepers.connect(&record.id).await?.stream(&Request::Open).await?;
        guest::identify(stream, &record).await
    }

    /// Asks the guest to power off and waits; ends the VMM when that does not help. The VMM's end is told by its
    /// keeper, and ends this effect too.
    pub(super) async fn shutdown(self, mut record: VmRecord, grace_ms: u32) -> Result<()> {
        self.intend(&mut record, Intent::Stop).await?;
        if grace_ms > 0 {
            match self.ask_to_power_off(&record.id, grace_ms).await {
                // A second more than the guest gives itself.
                Ok(()) => tokio::time::sleep(Duration::from_millis(u64::from(grace_ms) + 1000)).await,
                Err(error) => tracing::warn!(vm = %record.id, %error, "the guest cannot be asked to power off"),
            }
        }
        self.kill(record).await
    }

    async fn ask_to_power_off(&self, vm: &VmId, grace_ms: u32) -> Result<()> {
        let stream = self.keepers.connect(vm).await?.stream(&Request::Open).await?;
        guest::shutdown(stream, grace_ms).await
    }

    /// Ends the VMM at once; `Gone` when there is no keeper, and so no VMM. One that does not answer, or says that it
    /// has done it and lives on, is ended by its process, and takes its VMM along.
    pub(super) async fn kill(self, record: VmRecord) -> Result<()> {
        let asked = async { self.keepers.connect(&record.id).await?.ask(&Request::Kill, Vec::new()).await.map(drop) };
        match asked.await {
            Err(error) if error.kind == Kind::Gone => return Err(error),
            Err(error) => tracing::warn!(vm = %record.id, %error, "the keeper is killed"),
            // Its end, which the watch tells, is the end of this.
            Ok(()) => {
                tokio::time::sleep(KEEPER_END).await;
                tracing::warn!(vm = %record.id, "the keeper said that it ends, and is killed");
            }
        }
        self.keepers.runner.kill(&record.id, record.keeper.as_ref()).await?;
        Err(Error::new(Kind::Gone, "its keeper did not end it and was killed"))
    }

    /// Puts away what a VM that ran used on the host.
    ///
    /// `goes`: it is removed next, which puts away the rest.
    pub(super) async fn settle(self, mut record: VmRecord, goes: bool) -> Result<Outcome> {
        let keeper = record.keeper.take();
        record.backend = None;
        record.backend_reason = None;
        record.started = None;
        if !goes {
            self.intend(&mut record, Intent::Stopped).await?;
        }
        tokio::join!(self.keeper_ends(&record, keeper.as_ref()), self.put_network_away(&record, goes));
        Ok(Outcome { record, notes: Vec::new() })
    }

    pub(crate) async fn keeper_ends(&self, record: &VmRecord, keeper: Option<&Process>) {
        match tokio::time::timeout(KEEPER_END, self.keepers.runner.settle(&record.id, keeper)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(vm = %record.id, %error, "the keeper's place is left"),
            Err(_) => tracing::warn!(vm = %record.id, "the keeper has not ended"),
        }
    }

    async fn put_network_away(&self, record: &VmRecord, goes: bool) {
        if goes || record.lease.is_none() {
            return;
        }
        // A network service that is not there has nothing to take away; what is left it reconciles itself.
        if let Err(error) = self.peers.close_tap(&record.id).await {
            tracing::warn!(vm = %record.id, %error, "the network device stays for now");
        }
    }

    /// Removes everything.
    pub(super) async fn remove(self, mut record: VmRecord) -> Result<()> {
        // A full disk takes no record, and removing is what makes room on it.
        if let Err(error) = self.intend(&mut record, Intent::Remove).await {
            tracing::warn!(vm = %record.id, %error, "removed without a record of the intent");
        }
        self.peers.release(&record.id).await?;
        self.keepers.forget(&record.id)?;
        self.records.delete::<VmRecord>(record.id.as_str()).await
    }

    /// The error of a boot that took too long.
    pub(super) async fn late(self, vm: VmId, phase: Option<Phase>, deadline: Duration) -> Error {
        let reached = match phase {
            None | Some(Phase::Idle) => "the VMM did not start",
            Some(Phase::Booting) => "the VMM runs, and the kernel has said nothing",
            Some(Phase::Kernel) => "the kernel runs, and the agent has not answered",
            Some(Phase::Agent | Phase::Exited(_)) => "the agent answered, and did not become this VM",
        };
        let console = console_tail(self.console(&vm, false).await).await;
        let hint = "'banger vm logs' shows all of the console; a host that is short of CPU or memory boots slowly";
        Error::new(Kind::Timeout, format!("not up after {} s: {reached}.{console}\n{hint}", deadline.as_secs()))
    }

    /// The error of a VMM that ended without being asked to.
    pub(crate) async fn ended(&self, vm: &VmId, exit: &Exit, booting: bool) -> Error {
        // Kept before the end is told. Its keeper may be gone by now, and a unit's socket would start another.
        let stored = || self.keepers.stored_console(vm);
        let how = match exit.cause {
            ExitCause::Status(0) if !booting => {
                return Error::new(Kind::Guest, guest::own_end(&console_bytes(stored()).await));
            }
            ExitCause::Status(status) => format!("the VMM ended with status {status}"),
            ExitCause::Signal(signal) => format!("the VMM was ended by signal {signal}"),
            ExitCause::Lease => "its client went away".into(),
            ExitCause::Asked => "it was ended on request".into(),
            ExitCause::Agent => "its agent does not speak this banger's language".into(),
        };
        let said = guest::sentence(&exit.message);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let console = if booting { console_tail(stored()).await } else { String::new() };
        Error::new(Kind::Guest, format!("{how}{said}{console}"))
    }

    /// The console: the keeper's, or what one that has ended has left.
    pub(crate) async fn console(&self, vm: &VmId, follow: bool) -> Result<OwnedFd> {
        match self.keepers.connect(vm).await {
            Ok(keeper) => keeper.stream(&Request::Console { follow }).await,
            Err(_) => self.keepers.stored_console(vm),
        }
    }

    /// What a machine has said at its console until now, as text.
    pub(crate) async fn console_so_far(&self, vm: &VmId) -> String {
        String::from_utf8_lossy(&console_bytes(self.console(vm, false).await).await).into_owned()
    }
}

/// As much of a console as can be had.
async fn console_bytes(console: Result<OwnedFd>) -> Vec<u8> {
    let read = async {
        let mut console = tokio::fs::File::from_std(console?.into()).take(CONSOLE_BYTES);
        let mut bytes = Vec::new();
        console.read_to_end(&mut bytes).await.map_err(Error::internal)?;
        Ok::<_, Error>(bytes)
    };
    let read = tokio::time::timeout(Duration::from_secs(2), read).await;
    read.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default()
}

async fn console_tail(console: Result<OwnedFd>) -> String {
    match tail(&console_bytes(console).await, CONSOLE_LINES) {
        empty if empty.is_empty() => " Its console is empty.".into(),
        lines => format!(" The end of its console:\n{lines}"),
    }
}
