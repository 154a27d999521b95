//! Images1: the catalog of images and kernels. Builds them on the user's machine by recipe, keeps them by content,
//! and hands them out as descriptors. Calls nobody.
#![forbid(unsafe_code)]

mod actor;
pub mod build;
mod catalog;
mod interface;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;

use actix::Actor;
use banger_bus::effects::blocking;
use banger_bus::{Dirs, Door, Records, Service};
use banger_schemas::error::Result;
use banger_schemas::{VmId, images};

use build::Settings;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (images::NAME, images::PATH);

/// Builds the service: the stores as they are, claims from the records, the actor and its face.
pub async fn start(service: Service, dirs: &Dirs) -> Result<()> {
    // Several bangers of one user may share what is kept by content.
    let folder = std::env::var_os("BANGER_IMAGE_DIR").map_or_else(|| dirs.state.join("catalog"), PathBuf::from);
    let agent = dirs.helper("banger-guest")?;
    let records = Records::open(&dirs.state.join("images.redb"))?;
    let settings = Settings { mirrors: mirrors() };
    let (catalog, entries) = blocking(move || {
        let catalog = catalog::Catalog::open(&folder, agent, settings)?;
        let entries = catalog.entries()?;
        Ok((catalog, entries))
    })
    .await?;
    let claims = claims(&records).await?;
    let door = Door::patient(actor::Images::new(catalog, records, entries, claims).start());
    service.publish(images::PATH, interface::Manager::new(service.clone(), door)).await
}

/// `BANGER_MIRRORS`: mirrors as mmdebstrap takes them, separated by newlines.
fn mirrors() -> Vec<String> {
    let text = std::env::var("BANGER_MIRRORS").unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
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
