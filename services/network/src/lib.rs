//! Network1: addresses, TAPs and published ports of this host's VMs. Owns the leases; calls nobody.
#![deny(unsafe_code)]

mod actor;
pub mod host;
mod interface;
mod perform;
pub mod plan;
pub mod pool;
mod record;
pub mod render;
mod renumber;
mod table;

use std::sync::Arc;

use actix::Actor;
use banger_bus::{Dirs, Door, Records, Service, settings};
use banger_schemas::error::Result;
use banger_schemas::network;

use host::{Bridge, Host, Places, Rootless};
use perform::Effects;
use plan::Uplink;
use table::Table;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (network::NAME, network::PATH);

/// The service at work.
#[derive(Debug)]
pub struct Running {
    effects: Effects,
    /// Whose network it is.
    uplink: Uplink,
}

impl banger_bus::service::Running for Running {
    /// A user's namespace and its uplink outlive the service as VMs do, and go when no VM has a lease. A host's bridge
    /// stays: others rely on it.
    async fn stop(self) {
        match self.uplink {
            Uplink::Slirp => self.effects.down_if_unused().await,
            Uplink::Host => (),
        }
    }
}

/// Builds the service: on the system bus over the host's own network, elsewhere over one of the user's own.
pub async fn start(service: Service, dirs: &Dirs) -> Result<Running> {
    if service.of_the_host() { start_bridge(service, dirs).await } else { start_rootless(service, dirs).await }
}

async fn start_rootless(service: Service, dirs: &Dirs) -> Result<Running> {
    let places = Places {
        helper: dirs.helper("banger-netns")?,
        runtime: dirs.runtime.join("network"),
        state: dirs.state.join("network"),
    };
    start_on(service, records(dirs)?, Arc::new(Rootless::new(places))).await
}

async fn start_bridge(service: Service, dirs: &Dirs) -> Result<Running> {
    let records = records(dirs)?;
    let (settings, default) = (settings::get(), host::bridge::Config::default());
    let config = host::bridge::Config {
        warm: settings.tap_pool_size.map_or(default.warm, usize::from),
        tell_firewalls: settings.tell_firewalls.unwrap_or(default.tell_firewalls),
        bus: Some(service.connection().clone()),
        note: None,
    };
    let (plan, note) = renumber::settle(settings, &config, &records).await?;
    let config = host::bridge::Config { note, ..config };
    start_on(service, records.clone(), Arc::new(Bridge::new(plan, config, records))).await
}

fn records(dirs: &Dirs) -> Result<Records> {
    Records::open(&dirs.state.join("network.redb"))
}

/// Builds the service on any host: leases from the records, the actor, its face.
pub async fn start_on(service: Service, records: Records, host: Arc<dyn Host>) -> Result<Running> {
    let plan = host.plan().clone();
    let (uplink, mode) = match plan.uplink {
        Uplink::Slirp => (Uplink::Slirp, "rootless"),
        Uplink::Host => (Uplink::Host, "bridge"),
    };
    let table = Table::restore(plan, &records).await?;
    let effects = Effects::new(host, records, table.rules());
    let actor = actor::Network::new(table, effects.clone()).start();
    service.publish(network::PATH, interface::Manager::new(service.clone(), Door::patient(actor), mode)).await?;
    Ok(Running { effects, uplink })
}
