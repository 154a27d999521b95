//! Storage1: the disks of VMs. Owns the files below `<state>/disks`; calls nobody.
#![forbid(unsafe_code)]

mod actor;
mod disks;
mod interface;

use std::path::Path;

use actix::Actor;
use banger_bus::{Door, Service};
use banger_schemas::error::Result;
use banger_schemas::storage;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (storage::NAME, storage::PATH);

/// Builds the service: disks that exist, the actor that owns them, its face.
pub async fn start(service: Service, state: &Path) -> Result<()> {
    let folder = state.join("disks");
    let disks = banger_bus::effects::blocking(move || disks::Disks::open(folder)).await?;
    let door = Door::patient(actor::Storage::new(disks).start());
    service.publish(storage::PATH, interface::Manager::new(service.clone(), door)).await
}
