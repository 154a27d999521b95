//! `banger image` and `banger kernel`.

use banger_bus::trace::options;
use banger_schemas::images::{self, ManagerProxy};
use banger_schemas::options::{Dict, DictBuilder};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::authorize::Ask;
use crate::client::Client;
use crate::error::Failure;
use crate::progress;
use crate::view::{Table, ago, bytes, json_of, out, print_fields};

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// List images
    #[command(visible_alias = "ls")]
    List(List),
    /// Show all about an image
    Show {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch or build an image, again if its recipe has changed
    Pull {
        /// Its name
        name: String,
    },
    /// Remove an image that no machine stands on
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum KernelCommand {
    /// List kernels
    #[command(visible_alias = "ls")]
    List(List),
    /// Fetch or build a kernel, again if its recipe has changed
    Pull {
        /// Its name
        name: String,
    },
    /// Remove a kernel that no machine stands on
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Also those that can be had and are not here yet
    #[arg(long)]
    available: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const COLUMNS: &[(&str, &str)] =
    &[("NAME", "name"), ("SIZE", "human_size"), ("CREATED", "age"), ("VERSION", "version"), ("USED BY", "users")];

async fn manager(client: &Client) -> Result<ManagerProxy<'static>, Failure> {
    Ok(ManagerProxy::new(&client.bus).await?)
}

pub(crate) async fn run_image(command: ImageCommand, ask: Ask) -> Result<(), Failure> {
    let client = Client::connect(ask).await?;
    let images = manager(&client).await?;
    match command {
        ImageCommand::List(args) => {
            let rows: Vec<Dict> = client.call(images.inner(), "List", &(available(&args),)).await?;
            table(&rows, args.json)
        }
        ImageCommand::Show { name, json } => {
            let image: Dict = client.call(images.inner(), "Show", &(&name,)).await?;
            print_fields(&fields(&image), json)
        }
        ImageCommand::Pull { name } => {
            let job = client.call(images.inner(), "Pull", &(&name, renewed())).await?;
            pulled(&client, job, &name).await
        }
        ImageCommand::Delete { name } => {
            client.call::<_, ()>(images.inner(), "Delete", &(&name, Dict::new())).await?;
            out(&format!("{name} deleted\n"))
        }
    }
}

pub(crate) async fn run_kernel(command: KernelCommand, ask: Ask) -> Result<(), Failure> {
    let client = Client::connect(ask).await?;
    let images = manager(&client).await?;
    match command {
        KernelCommand::List(args) => {
            let rows: Vec<Dict> = client.call(images.inner(), "ListKernels", &(available(&args),)).await?;
            table(&rows, args.json)
        }
        KernelCommand::Pull { name } => {
            let job = client.call(images.inner(), "PullKernel", &(&name, renewed())).await?;
            pulled(&client, job, &name).await
        }
        KernelCommand::Delete { name } => {
            client.call::<_, ()>(images.inner(), "DeleteKernel", &(&name, Dict::new())).await?;
            out(&format!("{name} deleted\n"))
        }
    }
}

/// Who asks for it by name wants it as it is made now.
fn renewed() -> Dict {
    let renew = DictBuilder::default().set("renew", true).build();
    options().into_iter().chain(renew).collect()
}

fn available(args: &List) -> Dict {
    DictBuilder::default().set("available", args.available).build()
}

async fn pulled(client: &Client, job: zbus::wire::OwnedObjectPath, name: &str) -> Result<(), Failure> {
    let result = json_of(&progress::wait(&client.bus, images::NAME, job).await?);
    let digest = result.get("digest").and_then(Value::as_str).unwrap_or_default();
    out(&format!("{name} {digest}\n"))
}

fn fields(row: &Dict) -> Map<String, Value> {
    let mut fields = json_of(row);
    if let Some(size) = fields.get("size").and_then(Value::as_u64) {
        fields.insert("human_size".into(), json!(bytes(size)));
    } else {
        fields.insert("human_size".into(), json!("not here yet"));
    }
    if let Some(created) = fields.get("created").and_then(Value::as_u64) {
        fields.insert("age".into(), json!(ago(created)));
    }
    fields
}

fn table(rows: &[Dict], as_json: bool) -> Result<(), Failure> {
    Table { columns: COLUMNS, rows: rows.iter().map(fields).collect() }.print(as_json)
}
