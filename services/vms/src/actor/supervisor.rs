//! The parent of all VMs: names, tokens, ids; makes the children, and makes them again when they die.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use actix::{Actor, AsyncContext, Context, Handler};
use banger_bus::effects::run;
use banger_bus::family::{Family, Guard, Verdict};
use banger_bus::{Job, post};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::images::{DEFAULT_IMAGE, DEFAULT_KERNEL};
use banger_schemas::vms::{DEFAULT_DISK_MIB, DEFAULT_MEMORY_MIB, DEFAULT_VCPUS, Spec};
use banger_schemas::{VmId, VmName};
use tokio::sync::watch;
use zbus::wire::OwnedObjectPath;

use super::messages::{Adopt, ChildGone, Create, Created, Drive, Find, Found, Obey};
use super::perform::Tools;
use super::vm::VmActor;
use crate::host_key::HostKey;
use crate::interface::{self, VmFace};
use crate::lifecycle::{Goal, State};
use crate::record::{Disks, Intent, VmRecord};
use crate::recover;
use crate::resume::Work;
use crate::view::View;

/// VMs that one host keeps; each costs an actor and an object.
const MOST: usize = 4096;

/// What the supervisor knows of a VM without asking it.
struct Entry {
    view: watch::Sender<View>,
    /// The job that made it in this life of the service, for a repeated token.
    job: Option<OwnedObjectPath>,
}

/// The parent of all VMs.
pub(crate) struct Supervisor {
    tools: Tools,
    entries: HashMap<VmId, Entry>,
    family: Family<VmId, VmActor>,
}

impl Supervisor {
    pub(crate) fn new(tools: Tools) -> Self {
        Supervisor { tools, entries: HashMap::new(), family: Family::default() }
    }

    fn admit(&self, create: &Create) -> Result<VmName> {
        if self.entries.len() >= MOST {
            return Err(Error::new(Kind::NoSpace, format!("there are {MOST} VMs already: delete some")));
        }
        let taken = |name: &VmName| self.entries.values().any(|e| e.view.borrow().record.name == *name);
        match &create.spec.name {
            Some(name) if taken(name) => Err(Error::new(
                Kind::Exists,
                format!("the name '{name}' is taken: choose another, or delete that VM first"),
            )),
            Some(name) => Ok(name.clone()),
            None => (0..100)
                .map(|_| VmName::generated(rand::random()))
                .find(|name| !taken(name))
                .ok_or_else(|| Error::internal("no free name was found")),
        }
    }

    fn record(name: VmName, create: &mut Create) -> Result<VmRecord> {
        let spec = std::mem::take(&mut create.spec);
        let Spec { image, kernel, vcpus, memory_mib, disk_mib, ports, network, nat, backend, cold, .. } = spec;
        let named = |given: Option<_>, default: &str| given.map_or_else(|| default.parse(), Ok);
        Ok(VmRecord {
            id: VmId::from_random(rand::random()),
            name,
            owner: create.owner,
            image: named(image, DEFAULT_IMAGE)?,
            kernel: named(kernel, DEFAULT_KERNEL)?,
            vcpus: vcpus.unwrap_or(DEFAULT_VCPUS),
            memory_mib: memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
            disk_mib: disk_mib.unwrap_or(DEFAULT_DISK_MIB),
            ports,
            network,
            nat,
            wanted: backend,
            cold,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            token: create.token.take(),
            machine_id: rand::random(),
            host_key: Some(HostKey::generate().map_err(Error::internal)?),
            intent: Intent::Create,
            lease: None,
            client: create.client.take(),
            backend: None,
            backend_reason: None,
            started: None,
            disks: Disks::Fresh(String::new()),
            keeper: None,
        })
    }

    /// Makes the actor of a VM.
    fn bear(
        &mut self,
        record: VmRecord,
        state: State,
        view: watch::Sender<View>,
        job: Option<(Goal, Job)>,
        ctx: &mut Context<Self>,
    ) {
        let (id, parent) = (record.id.clone(), ctx.address());
        let reported = id.clone();
        let guard = Guard::new(move |panicked| post(&parent, ChildGone { id: reported, panicked }));
        let child = VmActor::new(record, state, view, self.tools.clone(), job, guard);
        self.family.insert(id, child.start());
    }

    /// Makes a child again from its record, by the ordinary recovery.
    fn reborn(&mut self, id: VmId, ctx: &mut Context<Self>) {
        let tools = self.tools.clone();
        let wanted = id.clone();
        let read = async move {
            let records = recover::records(&tools).await?;
            let record = records.into_iter().find(|record| record.id == wanted);
            let record = record.ok_or_else(|| Error::new(Kind::Gone, "its record is gone"))?;
            let state = recover::classify(&tools, &record, None).await;
            Ok((record, state))
        };
        run(ctx, "reborn", std::time::Duration::from_secs(30), read, move |me, found, ctx| {
            match (found, me.entries.get(&id).map(|e| e.view.clone())) {
                (Ok((record, state)), Some(view)) => me.bear(record, state, view, None, ctx),
                (Err(error), _) => tracing::error!(vm = %id, %error, "this VM cannot be made again"),
                (Ok(_), None) => {}
            }
        });
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<Adopt> for Supervisor {
    type Result = Result<watch::Receiver<View>>;
    fn handle(&mut self, Adopt { record, state, job }: Adopt, ctx: &mut Context<Self>) -> Self::Result {
        let view = watch::Sender::new(View::new(record.clone(), &state));
        let receiver = view.subscribe();
        let path = job.as_ref().map(|(_, job)| job.path());
        self.entries.insert(record.id.clone(), Entry { view: view.clone(), job: path });
        self.bear(record, state, view, job, ctx);
        Ok(receiver)
    }
}

impl Handler<Create> for Supervisor {
    type Result = Result<Created>;
    fn handle(&mut self, mut message: Create, ctx: &mut Context<Self>) -> Result<Created> {
        let same = |e: &&Entry| {
            let view = e.view.borrow();
            message.token.is_some() && view.record.token == message.token && view.record.owner == message.owner
        };
        if let Some(entry) = self.entries.values().find(same) {
            let job = entry.job.clone().unwrap_or_else(|| message.job.path());
            let id = entry.view.borrow().record.id.clone();
            if entry.job.is_none() {
                message.job.finish(Ok(Default::default()));
            }
            return Ok(Created { id, fresh: None, job });
        }
        let name = match self.admit(&message) {
            Ok(name) => name,
            Err(error) => {
                message.job.finish(Err(error.clone()));
                return Err(error);
            }
        };
        let start = message.spec.start;
        let record = Supervisor::record(name, &mut message)?;
        let state = State::Creating { start, doomed: false };
        let view = watch::Sender::new(View::new(record.clone(), &state));
        let job = message.job.path();
        message.job.keep(&Work::Create { vm: record.id.clone(), start });
        let created = Created { id: record.id.clone(), fresh: Some(view.subscribe()), job: job.clone() };
        self.entries.insert(record.id.clone(), Entry { view: view.clone(), job: Some(job) });
        self.bear(record, state, view, Some((Goal::of_creation(start), message.job)), ctx);
        Ok(created)
    }
}

impl Handler<Find> for Supervisor {
    type Result = Result<Found>;
    fn handle(&mut self, message: Find, _: &mut Context<Self>) -> Result<Found> {
        let wanted = message.reference.as_str();
        let mut prefixed = Vec::new();
        for (id, entry) in &self.entries {
            let view = entry.view.borrow();
            if message.owner.is_some_and(|owner| owner != view.record.owner) {
                continue;
            }
            if view.record.name.as_str() == wanted || id.as_str() == wanted {
                return Ok(Found { id: id.clone() });
            }
            if !wanted.is_empty() && id.as_str().starts_with(wanted) {
                prefixed.push((id.clone(), view.record.name.clone()));
            }
        }
        prefixed.sort();
        match prefixed.as_slice() {
            [(id, _)] => Ok(Found { id: id.clone() }),
            [] => Err(Error::new(Kind::NotFound, format!("there is no VM '{wanted}': 'banger vm list -a' shows all"))),
            many => {
                let names: Vec<String> = many.iter().map(|(id, name)| format!("{name} ({id})")).collect();
                Err(Error::invalid(format!("'{wanted}' may be any of {}", names.join(", "))))
            }
        }
    }
}

impl Handler<Drive> for Supervisor {
    type Result = Result<()>;
    fn handle(&mut self, message: Drive, _: &mut Context<Self>) -> Result<()> {
        match self.family.get(&message.id) {
            Some(child) => {
                post(child, Obey { order: message.order, job: message.job });
                Ok(())
            }
            None => Err(Error::new(Kind::Gone, "this VM is gone, or cannot be managed: 'banger doctor' tells")),
        }
    }
}

impl Handler<ChildGone> for Supervisor {
    type Result = ();
    fn handle(&mut self, message: ChildGone, ctx: &mut Context<Self>) {
        match self.family.gone(&message.id, message.panicked, Instant::now()) {
            Verdict::Forget => {
                self.entries.remove(&message.id);
                let service = self.tools.service.clone();
                let path = interface::vm_path(&message.id);
                ctx.spawn(actix::fut::wrap_future(async move {
                    if let Err(error) = service.retire::<VmFace>(&path).await {
                        tracing::warn!(%error, path, "the object stays on the bus");
                    }
                }));
            }
            Verdict::Restart(after) => {
                tracing::error!(vm = %message.id, "its actor panicked and is made again");
                ctx.run_later(after, move |me, ctx| me.reborn(message.id, ctx));
            }
            Verdict::GiveUp => {
                tracing::error!(vm = %message.id, "its actor panicked too often");
                if let Some(entry) = self.entries.get(&message.id) {
                    entry.view.send_modify(|view| {
                        view.state = "failed";
                        view.detail = "degraded: managing it failed three times in a minute".into();
                    });
                }
            }
        }
    }
}
