//! `banger template`.

use banger_schemas::options::Dict;
use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::authorize::Ask;
use crate::client::Client;
use crate::error::Failure;
use crate::view::{Table, ago, bytes, json_of, out};

#[derive(Subcommand)]
pub(crate) enum TemplateCommand {
    /// List templates, the least recently used first
    #[command(visible_alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove all templates: the next machine of each kind boots, and has one made again
    Prune,
}

const COLUMNS: &[(&str, &str)] = &[
    ("IMAGE", "image"),
    ("VCPU", "vcpus"),
    ("MEMORY", "memory"),
    ("DISK", "disk"),
    ("BACKEND", "backend"),
    ("NETWORK", "network"),
    ("SIZE", "human_size"),
    ("CREATED", "age"),
    ("USED", "last_used"),
];

pub(crate) async fn run(command: TemplateCommand, ask: Ask) -> Result<(), Failure> {
    let client = Client::connect(ask).await?;
    let vms = client.vms().await?;
    match command {
        TemplateCommand::List { json } => {
            let rows: Vec<Dict> = client.call(vms.inner(), "ListTemplates", &(Dict::new(),)).await?;
            Table { columns: COLUMNS, rows: rows.iter().map(fields).collect() }.print(json)
        }
        TemplateCommand::Prune => {
            let count: u32 = client.call(vms.inner(), "PruneTemplates", &(Dict::new(),)).await?;
            out(&format!("{count} removed\n"))
        }
    }
}

fn fields(row: &Dict) -> Map<String, Value> {
    let mut fields = json_of(row);
    let number = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mib = |name: &str| bytes(number(name) << 20);
    let readable = [
        ("memory", mib("memory_mib")),
        ("disk", mib("disk_mib")),
        ("human_size", bytes(number("size"))),
        ("age", ago(number("created"))),
        ("last_used", ago(number("used"))),
    ];
    fields.extend(readable.map(|(name, text)| (name.to_owned(), json!(text))));
    fields
}
