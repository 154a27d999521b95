//! `banger vm start`, `stop`, `set` and `delete`: many at once, each with its own line.

use banger_bus::trace::options;
use banger_schemas::options::{Dict, DictBuilder};
use futures_util::{StreamExt, stream};

use crate::client::Client;
use crate::error::{Failure, code};
use crate::view::{note, out};

#[derive(clap::Args)]
pub(crate) struct Refs {
    /// Names or ids
    #[arg(required = true)]
    vms: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    refs: Refs,
    /// Seconds that the guest gets to shut down before it is ended
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
    grace: u32,
}

#[derive(clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    refs: Refs,
    #[command(flatten)]
    changes: Changes,
}

#[derive(clap::Args)]
#[group(required = true)]
struct Changes {
    /// Let it reach the outside
    #[arg(long, conflicts_with = "no_nat")]
    nat: bool,
    /// Let it reach nothing but who talks to it from this host
    #[arg(long)]
    no_nat: bool,
}

pub(crate) async fn start(client: &Client, refs: Refs) -> Result<u8, Failure> {
    each(client, refs, "started", "Start", Dict::new()).await
}

pub(crate) async fn stop(client: &Client, args: StopArgs) -> Result<u8, Failure> {
    let options = DictBuilder::default().set("grace-ms", args.grace * 1000).build();
    each(client, args.refs, "stopped", "Stop", options).await
}

pub(crate) async fn set(client: &Client, args: SetArgs) -> Result<u8, Failure> {
    // One of the two is there.
    let options = DictBuilder::default().set("nat", args.changes.nat).build();
    each(client, args.refs, "set", "Set", options).await
}

pub(crate) async fn delete(client: &Client, refs: Refs) -> Result<u8, Failure> {
    each(client, refs, "deleted", "Delete", Dict::new()).await
}

/// Machines that something is done to at once. A bus lets a connection have 128 open questions, and each of these may have
/// more than one.
const AT_ONCE: usize = 32;

/// Does the same to all, many at once; a failure of one does not keep the others.
async fn each(client: &Client, refs: Refs, done: &str, verb: &'static str, given: Dict) -> Result<u8, Failure> {
    let options: Dict = options().into_iter().chain(given).collect();
    let one = |reference| {
        let options = &options;
        async move {
            let ordered = async { client.order(&client.vm(reference).await?, verb, options).await };
            (reference, ordered.await)
        }
    };
    let mut outcomes = stream::iter(refs.vms.iter().map(String::as_str)).map(one).buffered(AT_ONCE);
    let mut worst = code::OK;
    while let Some((reference, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => out(&format!("{reference} {done}\n"))?,
            Err(failure) => {
                worst = failure.code;
                note(&format!("banger: {reference}: {}", failure.message));
            }
        }
    }
    Ok(worst)
}
