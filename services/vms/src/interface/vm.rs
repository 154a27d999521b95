//! `dev.banger.Vms1.Vm`.

use std::time::Duration;

use banger_bus::Door;
use banger_schemas::action::{CHANNEL, VM_MANAGE, VM_MANAGE_ALL};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Request;
use banger_schemas::options::{Dict, Options};
use tokio::sync::watch;
use zbus::interface;
use zbus::message::Header;
use zbus::wire::{OwnedFd, OwnedObjectPath};

use crate::actor::{Drive, Order, Supervisor, Tools};
use crate::resume::Work;
use crate::view::View;

#[derive(Debug)]
pub(crate) struct VmFace {
    tools: Tools,
    door: Door<Supervisor>,
    view: watch::Receiver<View>,
}

/// A caller waits this long for a VM that is on its way up.
const STARTING: Duration = Duration::from_secs(10);
/// What a guest gets to power off, where nothing is said.
const GRACE_MS: u32 = 10_000;

impl VmFace {
    pub(crate) fn new(tools: Tools, door: Door<Supervisor>, view: watch::Receiver<View>) -> Self {
        VmFace { tools, door, view }
    }

    fn snapshot(&self) -> View {
        self.view.borrow().clone()
    }

    /// Who calls, if it may use this VM.
    async fn authorize(&self, header: &Header<'_>) -> Result<u32> {
        let record = self.snapshot().record;
        let caller = self.tools.service.caller(header).await?;
        let action = if caller.uid == record.owner { VM_MANAGE } else { VM_MANAGE_ALL };
        self.tools.service.check(&caller, action, &record.details().pairs()).await?;
        Ok(caller.uid)
    }

    /// The VM once it is no longer on its way up; or as it is, when that takes long. A VM that was found again is
    /// told its identity once more, which nobody should notice.
    async fn when_started(&self) -> View {
        let mut changes = self.view.clone();
        let settled = changes.wait_for(|view| view.state != "starting");
        match tokio::time::timeout(STARTING, settled).await {
            Ok(Ok(view)) => view.clone(),
            _ => self.snapshot(),
        }
    }

    async fn drive(&self, header: &Header<'_>, kind: &'static str, order: Order) -> Result<OwnedObjectPath> {
        let caller = self.authorize(header).await?;
        let job = self.tools.service.jobs().create(kind, caller).await?;
        let path = job.path();
        let vm = self.snapshot().record.id;
        job.keep(&Work::Drive { vm: vm.clone(), order });
        self.door.ask(Drive { id: vm, order, job }).await?;
        Ok(path)
    }
}

#[interface(name = "dev.banger.Vms1.Vm")]
impl VmFace {
    /// Boots the VM. Returns a job, done when the agent has taken its identity.
    #[zbus(out_args("job"))]
    async fn start(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedObjectPath> {
        Options::new(options)?.finish()?;
        self.drive(&header, "start", Order::Start).await
    }

    /// Asks the guest to sync and power off, waits grace-ms u (10000), then ends it. Disks and address stay.
    #[zbus(out_args("job"))]
    async fn stop(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedObjectPath> {
        let mut options = Options::new(options)?;
        let grace_ms = options.take("grace-ms")?.unwrap_or(GRACE_MS);
        options.finish()?;
        self.drive(&header, "stop", Order::Stop { grace_ms }).await
    }

    /// Changes what can be changed while it runs, and stays so: nat b: whether it reaches the outside, and not only who talks
    /// to it from this host.
    #[zbus(out_args("job"))]
    async fn set(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedObjectPath> {
        let mut options = Options::new(options)?;
        let nat = options.take("nat")?;
        options.finish()?;
        self.drive(&header, "set", Order::Set { nat }).await
    }

    /// Ends the VM at once and removes everything that belongs to it.
    #[zbus(out_args("job"))]
    async fn delete(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedObjectPath> {
        Options::new(options)?.finish()?;
        self.drive(&header, "delete", Order::Delete).await
    }

    /// The console: a descriptor to read what the guest has written last; with follow b also what comes.
    #[zbus(out_args("console"))]
    async fn console(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedFd> {
        self.authorize(&header).await?;
        let mut options = Options::new(options)?;
        let follow = options.take("follow")?.unwrap_or(false);
        options.finish()?;
        let id = self.snapshot().record.id;
        Ok(self.tools.console(&id, follow).await?.into())
    }

    /// A stream to the agent, for a peer of the mesh.
    #[zbus(out_args("channel"))]
    async fn open_channel(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<OwnedFd> {
        self.tools.service.authorize(&header, CHANNEL, &[]).await?;
        Options::new(options)?.finish()?;
        let view = self.when_started().await;
        if view.state != "running" {
            let name = &view.record.name;
            let what = if view.detail.is_empty() { String::new() } else { format!(" ({})", view.detail) };
            return Err(Error::new(
                Kind::WrongState,
                format!("{name} is {}{what}: 'banger vm start {name}' starts it", view.state),
            ));
        }
        Ok(self.tools.keepers.connect(&view.record.id).await?.stream(&Request::Open).await?.into())
    }

    /// Its identity for its whole life; what the host calls its things by.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.snapshot().record.id.to_string()
    }

    /// Its name: unique, also its DNS name NAME.vm and the guest's host name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.snapshot().record.name.to_string()
    }

    /// The uid that it belongs to.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> u32 {
        self.view.borrow().record.owner
    }

    /// creating, stopped, starting, running, stopping, deleting or failed.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn state(&self) -> String {
        self.view.borrow().state.to_owned()
    }

    /// Why it is in this state, where there is something to say.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn detail(&self) -> String {
        self.snapshot().detail
    }

    /// The root file system that it stands on.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> String {
        self.snapshot().record.image.to_string()
    }

    /// The kernel that it boots.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kernel(&self) -> String {
        self.snapshot().record.kernel.to_string()
    }

    /// Virtual CPUs.
    #[zbus(property(emits_changed_signal = "const"))]
    fn vcpus(&self) -> u32 {
        self.view.borrow().record.vcpus
    }

    /// In MiB.
    #[zbus(property(emits_changed_signal = "const"))]
    fn memory_mib(&self) -> u32 {
        self.view.borrow().record.memory_mib
    }

    /// The size the disks may grow to, in MiB.
    #[zbus(property(emits_changed_signal = "const"))]
    fn disk_mib(&self) -> u64 {
        self.view.borrow().record.disk_mib
    }

    /// The guest's address in its network; empty without one.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn address(&self) -> String {
        self.snapshot().address()
    }

    /// The address that the VM's name resolves to on this host; empty without one.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn host_address(&self) -> String {
        self.snapshot().host_address()
    }

    /// Published ports, HOST:GUEST.
    #[zbus(property(emits_changed_signal = "const"))]
    fn ports(&self) -> Vec<String> {
        self.snapshot().record.ports.iter().map(ToString::to_string).collect()
    }

    /// Whether it reaches the outside, and not only who talks to it from this host.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn nat(&self) -> bool {
        self.view.borrow().record.nat
    }

    /// How it runs (firecracker, qemu-kvm, qemu-tcg); empty while it does not.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn backend(&self) -> String {
        self.snapshot().backend()
    }

    /// Why it runs so; empty while it does not.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn backend_reason(&self) -> String {
        self.snapshot().backend_reason()
    }

    /// How it was started (template, boot); empty while it does not run.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn started(&self) -> String {
        self.view.borrow().started().to_owned()
    }

    /// Why it has booted; empty otherwise.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn started_reason(&self) -> String {
        self.snapshot().started_reason()
    }

    /// By which its ssh server is known, as in known_hosts(5): ssh-ed25519 and the key; empty if a version made it that gave
    /// none.
    #[zbus(property(emits_changed_signal = "const"))]
    fn ssh_host_key(&self) -> String {
        self.view.borrow().ssh_host_key()
    }

    /// What it is to be run by: auto, qemu or firecracker.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend_wanted(&self) -> String {
        self.view.borrow().record.wanted.as_str().to_owned()
    }

    /// Deleted when its client is gone.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn ephemeral(&self) -> bool {
        self.view.borrow().record.client.is_some()
    }

    /// What the user should know: a missing network, a warning of the guest.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn notes(&self) -> Vec<String> {
        self.snapshot().notes
    }

    /// Seconds since the epoch.
    #[zbus(property(emits_changed_signal = "const"))]
    fn created(&self) -> u64 {
        self.view.borrow().record.created
    }

    /// /proc/sys/kernel/random/boot_id of the guest that runs; empty while none does.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn boot_id(&self) -> String {
        self.snapshot().boot_id
    }
}
