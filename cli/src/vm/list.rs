//! `banger vm list`.

use banger_schemas::vms;
use serde_json::{Map, Value};
use zbus::fdo::ObjectManagerProxy;

use super::show;
use crate::client::Client;
use crate::error::Failure;
use crate::view::Table;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also those that are not up
    #[arg(short, long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const COLUMNS: &[(&str, &str)] = &[
    ("NAME", "name"),
    ("ID", "id"),
    ("STATE", "state"),
    ("IMAGE", "image"),
    ("ADDRESS", "host_address"),
    ("PORTS", "ports"),
    ("CREATED", "age"),
];

pub(crate) async fn run(client: &Client, args: Args) -> Result<(), Failure> {
    let objects = ObjectManagerProxy::builder(&client.bus).destination(vms::NAME).path(vms::PATH).build().await?;
    let managed = objects.get_managed_objects().await.map_err(zbus::Error::from)?;
    let mut rows: Vec<Map<String, Value>> = managed
        .into_values()
        .filter_map(|mut interfaces| interfaces.remove(vms::VM))
        .map(|properties| show::fields_of(&properties))
        .filter(|row| args.all || !is_down(row))
        .collect();
    rows.sort_by_key(|row| row.get("created").and_then(Value::as_u64));
    Table { columns: COLUMNS, rows }.print(args.json)
}

fn is_down(row: &Map<String, Value>) -> bool {
    matches!(row.get("state").and_then(Value::as_str), Some("stopped" | "failed"))
}
