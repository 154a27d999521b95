//! Spans and logs: fields in the journal where systemd has connected us to it, else structured lines on stderr;
//! OpenTelemetry export where the environment asks for it.

use std::collections::HashMap;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Keeps the exporter alive; drop it last, so that the last spans go out.
#[derive(Debug)]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // Nobody is left to tell when the collector does not answer.
            drop(provider.shutdown());
        }
    }
}

/// Sets the process's subscriber: `BANGER_LOG` filters (default `info`), `OTEL_EXPORTER_OTLP_ENDPOINT` exports.
/// `writer` takes the lines.
pub fn init<W>(service: &'static str, writer: W) -> Guard
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("BANGER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,zbus=warn,busd=warn,hickory_server=warn"));
    let (journal, lines) = match journal(service) {
        Some(journal) => (Some(journal), None),
        None => (None, Some(tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false))),
    };
    let provider = exporter(service);
    let spans = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer(service)));
    // A second call in one process (tests) keeps the first subscriber.
    drop(
        tracing_subscriber::registry()
            .with(journal.with_filter(filter.clone()))
            .with(lines.with_filter(filter))
            .with(spans)
            .try_init(),
    );
    Guard(provider)
}

/// The journal, if that is where our stderr goes: `JOURNAL_STREAM` is its device and inode (systemd.exec(5)).
fn journal(service: &'static str) -> Option<tracing_journald::Layer> {
    let stderr = nix::sys::stat::fstat(std::io::stderr()).ok()?;
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    if stream != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_syslog_identifier(service.to_owned()).with_field_prefix(Some("BANGER".to_owned())))
}

fn exporter(service: &'static str) -> Option<SdkTracerProvider> {
    std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build().ok()?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name(service).build();
    Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

struct One<'a>(&'a str);

impl Extractor for One<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }
    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[derive(Default)]
struct Carrier(HashMap<String, String>);

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }
}

/// Makes `span` a child of the caller's span.
pub fn adopt(span: &tracing::Span, traceparent: Option<&str>) {
    if let Some(text) = traceparent {
        // A trace context that cannot be read starts a new trace.
        drop(span.set_parent(TraceContextPropagator::new().extract(&One(text))));
    }
}

/// The current span as a `traceparent`, for the options of a call to a peer.
pub fn traceparent() -> Option<String> {
    let mut carrier = Carrier::default();
    TraceContextPropagator::new().inject_context(&tracing::Span::current().context(), &mut carrier);
    carrier.0.remove("traceparent")
}
