//! Vms1: the supervisor of all VMs. Owns their records and lives; asks Images1, Storage1 and Network1 for what a VM
//! is made of, and leaves running it to the VM's keeper.
#![forbid(unsafe_code)]

mod actor;
mod guest;
mod host;
mod host_key;
mod interface;
mod lifecycle;
mod peers;
mod record;
mod recover;
mod resume;
mod templates;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use actix::Actor;
use banger_bus::{Dirs, Door, Records, Service};
use banger_schemas::error::Result;
use banger_schemas::vms;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use actor::{Adopt, Supervisor, Tools};
use host::backend::Backends;
use host::keeper::Keepers;
use host::runner::{Detached, Runner, Units};
use interface::ManagerFace;
use peers::Peers;
use resume::Interrupted;
use templates::Templates;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (vms::NAME, vms::PATH);

/// Builds the service: what was there is found again, each VM gets its actor and its object, then the manager.
pub async fn start(service: Service, dirs: &Dirs) -> Result<()> {
    let keeper = dirs.helper("banger-keeper")?;
    let runner: Arc<dyn Runner> = if service.of_the_host() {
        Arc::new(Units::new(service.connection().clone()))
    } else {
        Arc::new(Detached { folder: dirs.state.join("vms"), program: keeper.clone() })
    };
    let tools = Tools {
        records: Records::open(&dirs.state.join("vms.redb"))?,
        keepers: Keepers::new(dirs.state.join("vms"), runner)?,
        backends: Backends::new(dirs.runtime.join("backend.json")),
        templates: Templates::open(dirs.state.join("templates"))?,
        peers: Peers::new(service.connection().clone()),
        keeper,
        turns: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        service,
    };
    let door = Door::new(Supervisor::new(tools.clone()).start());
    let records = recover::records(&tools).await?;
    let jobs = tools.service.jobs().resume(&dirs.runtime.join("jobs"), tools.service.bus()).await?;
    let mut interrupted = Interrupted::new(jobs);
    // All at once: a keeper that does not answer takes its time.
    let states = records.iter().map(|record| recover::classify(&tools, record, interrupted.making(&record.id)));
    let states = join_all(states).await;
    let mut views = HashMap::new();
    for (record, state) in records.into_iter().zip(states) {
        let id = record.id.clone();
        let job = interrupted.take_creation(&id, &state);
        let view = door.ask(Adopt { record, state, job }).await?;
        interface::publish(&tools, &door, &id, view.clone()).await?;
        views.insert(id, view);
    }
    interrupted.go_on(&door, &views);
    tokio::spawn({
        let tools = tools.clone();
        async move {
            tools.backends.all().await;
            recover::sweep(&tools).await;
        }
    });
    let face = ManagerFace::new(tools.clone(), door);
    tools.service.publish(vms::PATH, face).await
}
