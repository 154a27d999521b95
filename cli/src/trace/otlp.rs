//! Sends a trace to a collector (OTLP over HTTP, protobuf): from here, since the services of a host have no network.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_schemas::observe::{Span, TraceId};
use opentelemetry::trace::{self, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use crate::error::Failure;

const PATH: &str = "/v1/traces";
const PATIENCE: Duration = Duration::from_secs(10);

/// `url`: where the collector is, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
pub(super) async fn send(url: &str, trace: TraceId, spans: &[Span]) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("the trace did not reach the collector at {url}: {error}"))
            .hint("a collector takes OTLP by plain HTTP at port 4318: --otlp http://localhost:4318")
    };
    let endpoint = format!("{}{PATH}", url.trim_end_matches('/'));
    let services: HashMap<u64, &str> = spans.iter().map(|span| (span.id, span.service.as_str())).collect();
    let mut batches: BTreeMap<&str, Vec<SpanData>> = BTreeMap::new();
    for span in spans {
        let served = services.get(&span.parent).is_some_and(|service| *service != span.service);
        let kind = if served { SpanKind::Server } else { SpanKind::Internal };
        batches.entry(&span.service).or_default().push(data(trace, span, kind));
    }
    // An exporter has one resource: its service.
    for (service, batch) in batches {
        let exporter = SpanExporter::builder().with_http().with_endpoint(&endpoint).with_timeout(PATIENCE).build();
        let mut exporter = exporter.map_err(|e| failed(&e))?;
        exporter.set_resource(&Resource::builder_empty().with_service_name(service.to_owned()).build());
        exporter.export(batch).await.map_err(|e| failed(&e))?;
    }
    Ok(())
}

fn data(trace: TraceId, span: &Span, span_kind: SpanKind) -> SpanData {
    let id = |id: u64| SpanId::from_bytes(id.to_be_bytes());
    let trace_id = trace::TraceId::from_bytes(trace.0.to_be_bytes());
    let start_time = at(span.start);
    SpanData {
        span_context: SpanContext::new(trace_id, id(span.id), TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: id(span.parent),
        parent_span_is_remote: span_kind == SpanKind::Server,
        span_kind,
        name: Cow::Owned(span.name.clone()),
        start_time,
        end_time: at(span.start.saturating_add(span.duration)),
        attributes: span.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone())).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if span.error.is_empty() { Status::Unset } else { Status::error(span.error.clone()) },
        instrumentation_scope: InstrumentationScope::builder("banger").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn at(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}
