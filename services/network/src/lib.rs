//! Network1: addresses, TAPs and published ports of this host's VMs. Owns the leases; calls nobody.
#![deny(unsafe_code)]

mod actor;
pub mod host;
mod interface;
mod perform;
pub mod pool;
mod record;
pub mod render;
mod table;

use std::sync::Arc;

use actix::Actor;
use banger_bus::{Dirs, Door, Records, Service};
use banger_schemas::error::Result;
use banger_schemas::network;

use host::{Host, Places, Rootless};
use perform::Effects;
use table::Table;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (network::NAME, network::PATH);

/// The service at work.
#[derive(Debug)]
pub struct Running {
    effects: Effects,
}

impl banger_bus::service::Running for Running {
    /// The namespace and its uplink outlive the service as VMs do, and go when no VM has a lease.
    async fn stop(self) {
        self.effects.down_if_unused().await;
    }
}

/// Builds the service on a network of the user's own.
pub async fn start(service: Service, dirs: &Dirs) -> Result<Running> {
    let places = Places {
        helper: dirs.helper("banger-netns")?,
        runtime: dirs.runtime.join("network"),
        state: dirs.state.join("network"),
    };
    start_on(service, dirs, Arc::new(Rootless::new(places))).await
}

/// Builds the service on any host: leases from the records, the actor, its face.
pub async fn start_on(service: Service, dirs: &Dirs, host: Arc<dyn Host>) -> Result<Running> {
    let records = Records::open(&dirs.state.join("network.redb"))?;
    let table = Table::restore(&records).await?;
    let effects = Effects::new(host, records, table.rules());
    let actor = actor::Network::new(table, effects.clone()).start();
    service.publish(network::PATH, interface::Manager::new(service.clone(), Door::patient(actor))).await?;
    Ok(Running { effects })
}
