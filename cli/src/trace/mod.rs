//! `banger trace`: runs another command of banger's and shows where its time went, through all services.

mod otlp;
mod waterfall;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use banger_bus::trace::{self, Place};
use banger_schemas::error::Error;
use banger_schemas::observe::{Span, TraceId};
use clap::Parser;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::authorize::Ask;
use crate::client::Client;
use crate::error::{Failure, code};
use crate::view::note;
use crate::{Cli, observe};

/// What the client calls itself.
const CLIENT: &str = "banger";
/// A span that ends after its work's answer is there in this time.
const LATE: Duration = Duration::from_millis(50);
const TRIES: u32 = 20;

/// Run a command of banger's and show where its time went
///
/// Everything that the services do for it is shown on stderr when it has ended, as time(1) does: each piece of work
/// below what it was done for. The exit status is the command's. With TRACEPARENT in the environment (W3C Trace
/// Context) it all belongs to that trace.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show JSON
    #[arg(long)]
    json: bool,
    /// Write to a file instead of stderr
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also send it to an OpenTelemetry collector, by HTTP: http://localhost:4318
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp: Option<String>,
    /// The command, such as: vm run --rm -- true
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) async fn run(args: Args, ask: Ask) -> Result<u8, Failure> {
    let words = std::iter::once(CLIENT.into()).chain(args.command.iter().cloned());
    let Cli { no_ask, command } = Cli::parse_from(words);
    let ask = if no_ask { Ask::Nobody } else { ask };
    trace::init_without_logs();
    let whole = {
        let given = std::env::var("TRACEPARENT").ok();
        let _place = Place::beginning(given.as_deref(), CLIENT).enter();
        tracing::info_span!("command", what = line(&args.command), error = tracing::field::Empty)
    };
    let id = whole.in_scope(trace::current_trace);
    let traced = async {
        // Kept to the end: with a client the services stay, and remember.
        let client = Client::connect(ask).await?;
        Ok::<_, Failure>((client, Box::pin(crate::run(command, ask)).await))
    };
    let (client, outcome) = traced.instrument(whole.clone()).await?;
    if let Err(failure) = &outcome {
        whole.record("error", failure.message.as_str());
    }
    drop(whole);
    let id = id.ok_or_else(|| Failure::new("no trace was begun: this is a bug"))?;
    let spans = collect(&client, id).await?;
    let shown = if args.json { format!("{:#}\n", as_json(id, &spans)) } else { waterfall::draw(id, &spans) };
    match &args.output {
        Some(path) => std::fs::write(path, shown)
            .map_err(|e| Failure::new(format!("the trace cannot be written to {}: {e}", path.display())))?,
        None => note(shown.trim_end()),
    }
    if let Some(url) = &args.otlp {
        otlp::send(url, id, &spans).await?;
    }
    outcome
}

/// The command as one would write it.
fn line(command: &[OsString]) -> String {
    let words = command.iter().map(|word| word.to_string_lossy());
    std::iter::once(CLIENT.into()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The client's own spans and the services'. One whose parent is not there yet tells that something has not ended.
async fn collect(client: &Client, trace: TraceId) -> Result<Vec<Span>, Error> {
    let own = trace::remembered(trace);
    let mut spans = Vec::new();
    for _ in 0..TRIES {
        let theirs = observe::spans(&client.bus, trace).await?;
        let known: BTreeSet<u64> = own.iter().chain(&theirs).map(|span| span.id).collect();
        let whole = theirs.iter().all(|span| known.contains(&span.parent));
        spans = own.iter().cloned().chain(theirs).collect();
        if whole {
            break;
        }
        tokio::time::sleep(LATE).await;
    }
    spans.sort_by_key(|span| (span.start, span.id));
    Ok(spans)
}

fn as_json(trace: TraceId, spans: &[Span]) -> Value {
    let span = |span: &Span| {
        json!({
            "name": span.name,
            "service": span.service,
            "id": format!("{:016x}", span.id),
            "parent": format!("{:016x}", span.parent),
            "start_ns": span.start,
            "duration_ns": span.duration,
            "error": span.error,
            "attributes": span.attributes,
        })
    };
    json!({ "trace": trace.to_string(), "spans": spans.iter().map(span).collect::<Vec<_>>() })
}

/// `banger metrics`: the numbers of all services that run.
pub(crate) async fn metrics() -> Result<u8, Failure> {
    let client = Client::connect(Ask::Nobody).await?;
    crate::view::out(&observe::metrics(&client.bus).await?)?;
    Ok(code::OK)
}
