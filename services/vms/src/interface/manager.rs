//! `dev.banger.Vms1.Manager`.

use banger_bus::{Caller, Door, objects};
use banger_schemas::VmId;
use banger_schemas::action::{TEMPLATE_PRUNE, VIEW, VM_CREATE, VM_MANAGE_ALL};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::options::{Dict, DictBuilder, OWNER, Options};
use banger_schemas::vms::{Spec, Wanted};
use tokio::sync::watch;
use zbus::interface;
use zbus::message::Header;
use zbus::wire::OwnedObjectPath;

use super::{VmFace, vm_path};
use crate::actor::{CREATE, Create, Find, Supervisor, Tools};
use crate::record::Client;
use crate::templates::Row;
use crate::view::View;
use banger_bus::process::Process;

#[derive(Debug)]
pub(crate) struct ManagerFace {
    tools: Tools,
    door: Door<Supervisor>,
}

/// Longest token: a UUID and some.
const TOKEN: usize = 128;

impl ManagerFace {
    pub(crate) fn new(tools: Tools, door: Door<Supervisor>) -> Self {
        ManagerFace { tools, door }
    }

    async fn make(&self, header: &Header<'_>, spec: Spec, token: Option<String>) -> Result<(VmId, OwnedObjectPath)> {
        let caller = self.tools.service.caller(header).await?;
        self.tools.service.check(&caller, VM_CREATE, &spec.details(caller.uid).pairs()).await?;
        let client = match (spec.ephemeral, caller.pid) {
            (false, _) => None,
            (true, Some(pid)) => Some(client(&caller, pid)?),
            (true, None) => return Err(Error::new(Kind::NotSupported, "the bus does not say which process you are")),
        };
        let job = self.tools.service.jobs().create(CREATE, caller.uid).await?;
        let created = self.door.ask(Create { spec, owner: caller.uid, token, client, job }).await?;
        if let Some(view) = created.fresh {
            publish(&self.tools, &self.door, &created.id, view).await?;
        }
        Ok((created.id, created.job))
    }

    async fn find(&self, reference: &str, owner: Option<u32>) -> Result<VmId> {
        Ok(self.door.ask(Find { reference: reference.to_owned(), owner }).await?.id)
    }

    /// What is not the caller's own, if it may see it. A prompt tells no more than a name that is taken.
    async fn find_of_others(&self, caller: &Caller, reference: &str, absent: Error) -> Result<VmId> {
        let found = self.find(reference, None).await;
        if matches!(&found, Err(error) if error.kind == Kind::NotFound) {
            return Err(absent);
        }
        let service = &self.tools.service;
        if !service.shows_all(caller).await {
            service.check(caller, VM_MANAGE_ALL, &[("vm", reference)]).await.map_err(|_| absent)?;
            service.show_all(caller);
        }
        found
    }
}

/// Whoever calls, as it is found again.
fn client(caller: &Caller, pid: u32) -> Result<Client> {
    let process = Process::of(pid.cast_signed());
    let process = process.map_err(|_| Error::new(Kind::Gone, "whoever asked for this VM has gone"))?;
    Ok(Client { bus_name: caller.name.to_string(), process })
}

/// Puts a VM on the bus.
pub(crate) async fn publish(
    tools: &Tools,
    door: &Door<Supervisor>,
    id: &VmId,
    view: watch::Receiver<View>,
) -> Result<()> {
    let path = vm_path(id);
    let owner = view.borrow().record.owner;
    tools.service.publish_for(owner, &path, VmFace::new(tools.clone(), door.clone(), view.clone())).await?;
    tokio::spawn(objects::publish(tools.service.connection().clone(), path, view, |_| true));
    Ok(())
}

#[interface(name = "dev.banger.Vms1.Manager")]
impl ManagerFace {
    /// Makes a VM. spec: name s, image s, kernel s, vcpus u, memory-mib u, disk-mib t, ports as (HOST:GUEST),
    /// start b (true), ephemeral b (false), network b (true), nat b (true), backend s (auto, qemu, firecracker), cold b (false:
    /// it may go on from a template). options: token s (a repeated token returns the same VM and job, so a lost reply makes
    /// no second VM). Returns the VM and the job that makes it.
    #[zbus(out_args("vm", "job"))]
    async fn create(
        &self,
        #[zbus(header)] header: Header<'_>,
        spec: Dict,
        options: Dict,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath)> {
        let mut options = Options::new(options)?;
        let token = options.take::<String>("token")?;
        options.finish()?;
        if token.as_ref().is_some_and(|t| t.len() > TOKEN) {
            return Err(Error::invalid(format!("a token has at most {TOKEN} bytes")));
        }
        let (id, job) = self.make(&header, Spec::from_dict(spec)?, token).await?;
        Ok((path(&id)?, job))
    }

    /// The VM of this name, id, or unique beginning of an id. An ambiguous one lists the candidates. Others' VMs are
    /// there for who may see them. options: owner u: as this user sees it, for who may see everybody's.
    #[zbus(out_args("vm"))]
    async fn get(&self, #[zbus(header)] header: Header<'_>, reference: &str, options: Dict) -> Result<OwnedObjectPath> {
        let mut options = Options::new(options)?;
        let owner = options.take::<u32>(OWNER)?;
        options.finish()?;
        let caller = self.tools.service.caller(&header).await?;
        if owner.is_some_and(|owner| owner != caller.uid) && !self.tools.service.shows_all(&caller).await {
            return Err(Error::new(Kind::NotAuthorized, "you may look for your own machines only"));
        }
        let found = match (self.find(reference, Some(owner.unwrap_or(caller.uid))).await, owner) {
            (Err(absent), None) if absent.kind == Kind::NotFound => {
                self.find_of_others(&caller, reference, absent).await
            }
            (found, _) => found,
        };
        path(&found?)
    }

    /// Templates that new VMs go on from, the least recently used first. Each: name s, image s, kernel s, backend s, vcpus
    /// u, memory-mib u, disk-mib t, network b, size t (bytes on the disk), created t, used t (seconds since the epoch).
    #[zbus(out_args("templates"))]
    async fn list_templates(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Vec<Dict>> {
        self.tools.service.authorize(&header, VIEW, &[]).await?;
        Options::new(options)?.finish()?;
        Ok(self.tools.templates.list().await?.iter().map(template).collect())
    }

    /// Removes all templates; how many. VMs that go on from one are not disturbed, and the next of its kind boots.
    #[zbus(out_args("count"))]
    async fn prune_templates(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<u32> {
        self.tools.service.authorize(&header, TEMPLATE_PRUNE, &[]).await?;
        Options::new(options)?.finish()?;
        self.tools.templates.prune().await
    }

    /// How VMs run on this host: firecracker, qemu-kvm, qemu-tcg, or empty when they cannot.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn backend(&self) -> String {
        let best = self.tools.backends.choose(Wanted::Auto).await;
        best.map(|choice| choice.backend.as_str().to_owned()).unwrap_or_default()
    }

    /// Why this backend, in one sentence.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn backend_reason(&self) -> String {
        let best = self.tools.backends.choose(Wanted::Auto).await;
        best.map_or_else(|error| error.message, |choice| choice.reason)
    }

    /// Every way to run VMs, the best first: its name, whether it works here, what speaks for or against it.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn backends(&self) -> Vec<(String, bool, String)> {
        self.tools.backends.all().await
    }

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }
}

fn template(row: &Row) -> Dict {
    DictBuilder::default()
        .set("name", row.name.as_str())
        .set("image", row.image.as_str())
        .set("kernel", row.kernel.as_str())
        .set("backend", row.key.backend.as_str())
        .set("vcpus", row.key.vcpus)
        .set("memory-mib", row.key.memory_mib)
        .set("disk-mib", row.key.disk_mib)
        .set("network", row.key.network)
        .set("size", row.bytes)
        .set("created", row.made)
        .set("used", row.used)
        .build()
}

fn path(id: &VmId) -> Result<OwnedObjectPath> {
    OwnedObjectPath::try_from(vm_path(id)).map_err(Error::internal)
}
