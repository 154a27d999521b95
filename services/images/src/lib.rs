//! Images1: the catalog of images and kernels. Builds them on the user's machine by recipe, keeps them by content,
//! and hands them out as descriptors. Calls nobody.
#![forbid(unsafe_code)]

mod actor;
pub mod build;
mod catalog;
mod interface;
mod record;
mod workshop;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;

use actix::Actor;
use banger_bus::effects::blocking;
use banger_bus::{Dirs, Door, Records, Service, settings};
use banger_schemas::error::{Error, Result};
use banger_schemas::{VmId, images};

use build::Settings;
use catalog::Catalog;
use workshop::Workshop;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (images::NAME, images::PATH);

/// Builds the service: the stores as they are, claims from the records, the actor and its face.
pub async fn start(service: Service, dirs: &Dirs) -> Result<()> {
    let records = Records::open(&dirs.state.join("images.redb"))?;
    let workshop = if service.of_the_host() { Workshop::Unit(workshop::SOCKET.into()) } else { Workshop::Here };
    let (dirs, runtime) = (dirs.clone(), dirs.runtime.clone());
    let (catalog, entries) = blocking(move || {
        let catalog = open(&dirs, workshop)?;
        let entries = catalog.entries()?;
        Ok((catalog, entries))
    })
    .await?;
    let claims = claims(&records).await?;
    let door = Door::patient(actor::Images::new(catalog, records, entries, claims).start());
    // Whoever waits for an image waits on.
    for ((class, name, renew), job) in service.jobs().resume(&runtime.join("jobs"), service.bus()).await? {
        door.ask(actor::Pull { class, name, renew, job }).await?;
    }
    service.publish(images::PATH, interface::Manager::new(service.clone(), door)).await
}

/// Does one build for whoever is at the other end of standard input, and ends: `banger-build@.service`.
pub fn build(dirs: &Dirs) -> Result<()> {
    let connection = std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::internal)?;
    workshop::serve(&open(dirs, Workshop::Here)?, &connection.into())
}

fn open(dirs: &Dirs, workshop: Workshop) -> Result<Catalog> {
    // Several bangers of one user may share what is kept by content.
    let folder = std::env::var_os("BANGER_IMAGE_DIR").map_or_else(|| dirs.state.join("catalog"), PathBuf::from);
    Catalog::open(
        &folder,
        dirs.helper("banger-guest")?,
        Settings { mirrors: settings::get().mirrors.clone() },
        workshop,
    )
}

async fn claims(records: &Records) -> Result<BTreeMap<VmId, record::Claim>> {
    let mut claims = BTreeMap::new();
    for (key, claim) in records.all::<record::Claim>().await? {
        match (key.parse::<VmId>(), claim) {
            (Ok(vm), Ok(claim)) => drop(claims.insert(vm, claim)),
            (_, claim) => tracing::error!(key, error = ?claim.err(), "a claim is not understood and left alone"),
        }
    }
    Ok(claims)
}
