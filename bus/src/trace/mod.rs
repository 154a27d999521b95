//! Spans and logs. Logs go to the journal where systemd has connected us to it, else to stderr; spans of traces that
//! somebody asked for are remembered for a while ([`ring`], docs/decisions/0014). Knows nothing of any capability.

mod journal;
mod ring;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TracerProvider};
use opentelemetry::{Context, ContextGuard};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::settings;
use banger_schemas::observe::{Span, TraceId};
use banger_schemas::options::{Dict, DictBuilder, TRACEPARENT};

/// What the targets of all spans that are ours begin with.
const OURS: &str = "banger";

/// Sets the process's subscriber: the settings say what is logged (default `info`), `writer` takes the lines.
pub fn init<W>(service: &'static str, writer: W)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = settings::get().log_level.as_deref().and_then(|level| EnvFilter::try_new(level).ok());
    let filter = wanted.unwrap_or_else(|| EnvFilter::new("info,zbus=warn,busd=warn,hickory_server=warn"));
    let (journal, lines) = match journal::Journal::connected(service) {
        Some(journal) => (Some(journal), None),
        None => (None, Some(tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false))),
    };
    let logs = Registry::default().with(journal.with_filter(filter.clone())).with(lines.with_filter(filter));
    // A second call in one process (tests) keeps the first subscriber.
    drop(logs.with(spans()).try_init());
}

/// Sets the subscriber of a process that logs nothing.
pub fn init_without_logs() {
    drop(Registry::default().with(spans()).try_init());
}

/// Remembers spans of ours that belong to a trace. Of any other nothing is made, so that they cost next to nothing.
fn spans<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).with_span_processor(ring::RING.clone());
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.build().tracer(OURS))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    let ours = |metadata: &tracing::Metadata<'_>| metadata.is_span() && metadata.target().starts_with(OURS);
    let traced = dynamic_filter_fn(move |metadata, _| ours(metadata) && Place::is_traced())
        .with_callsite_filter(move |metadata| match ours(metadata) {
            true => tracing::subscriber::Interest::sometimes(),
            false => tracing::subscriber::Interest::never(),
        })
        .with_max_level_hint(LevelFilter::INFO);
    layer.with_filter(traced)
}

/// The spans of a trace that are remembered here.
pub fn remembered(trace: TraceId) -> Vec<Span> {
    ring::RING.of(trace)
}

/// Who works, for the spans below.
#[derive(Debug, Clone)]
struct Worker(String);

/// A place in a trace, or none: what work is begun for. Unlike a span it can be kept for as long as one likes; work
/// that is begun while it is entered is a child of it.
#[derive(Debug, Clone, Default)]
pub struct Place(Context);

impl Place {
    /// The place of the caller's, if it wants to be traced.
    pub fn of_call(traceparent: Option<&str>, worker: &str) -> Self {
        match traceparent.and_then(parse) {
            Some(caller) if caller.is_sampled() => Place::below(caller, worker),
            _ => Place::default(),
        }
    }

    /// The beginning of a trace; below another program's span if the environment says so
    /// (`TRACEPARENT`, W3C Trace Context).
    pub fn beginning(traceparent: Option<&str>, worker: &str) -> Self {
        Place::below(traceparent.and_then(parse).unwrap_or(SpanContext::NONE), worker)
    }

    /// Where the caller of this function is.
    pub fn here() -> Self {
        let here = |context: &Context| {
            let worker = context.get::<Worker>()?;
            Some(Place::below(context.span().span_context().clone(), &worker.0))
        };
        Context::map_current(here).unwrap_or_default()
    }

    /// Until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> ContextGuard {
        self.0.clone().attach()
    }

    fn below(parent: SpanContext, worker: &str) -> Self {
        Place(Context::new().with_remote_span_context(parent).with_value(Worker(worker.to_owned())))
    }

    fn is_traced() -> bool {
        Context::map_current(|context| context.get::<Worker>().is_some())
    }
}

struct One<'a>(&'a str);

impl Extractor for One<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }
    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// A trace context that cannot be read is none.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &One(traceparent));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

fn current() -> Option<SpanContext> {
    let current = |context: &Context| Some(context.span().span_context().clone());
    Context::map_current(|context| context.get::<Worker>().and_then(|_| current(context)))
        .filter(|span| span.is_valid() && span.is_sampled())
}

/// The trace that the caller of this function belongs to.
pub fn current_trace() -> Option<TraceId> {
    current().map(|span| TraceId(u128::from_be_bytes(span.trace_id().to_bytes())))
}

/// Options of a call, so that what it does is a child of the current span.
pub fn options() -> Dict {
    let traceparent = current().map(|span| format!("00-{}-{}-01", span.trace_id(), span.span_id()));
    DictBuilder::default().set_some(TRACEPARENT, traceparent).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const TRACE: TraceId = TraceId(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);

    #[test]
    fn work_is_a_child_of_the_place_that_it_was_begun_at() {
        let subscriber = Registry::default().with(spans());
        let _default = tracing::subscriber::set_default(subscriber);
        let place = Place::of_call(Some(CALLER), "Vms1");
        let kept = {
            let _entered = place.enter();
            let call = tracing::info_span!("call", what = "Vms1.Create");
            call.in_scope(Place::here)
        };
        // The call is over; what it has begun goes on.
        let later = {
            let _entered = kept.enter();
            tracing::info_span!("effect", what = "make", error = tracing::field::Empty)
        };
        later.record("error", "no room");
        later.in_scope(|| assert_eq!(current_trace(), Some(TRACE)));
        drop(later);
        let spans = remembered(TRACE);
        let [call, make] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((call.name.as_str(), call.parent), ("Vms1.Create", 0xb7ad_6b71_6920_3331));
        assert_eq!((make.name.as_str(), make.parent), ("make", call.id));
        assert_eq!((make.service.as_str(), make.error.as_str()), ("Vms1", "no room"));
    }

    #[test]
    fn who_does_not_ask_for_a_trace_leaves_none() {
        let subscriber = Registry::default().with(spans());
        let _default = tracing::subscriber::set_default(subscriber);
        let unsampled = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00";
        for traceparent in [None, Some(unsampled), Some("garbage"), Some("")] {
            let _entered = Place::of_call(traceparent, "Vms1").enter();
            tracing::info_span!("call", what = "x").in_scope(|| {
                assert_eq!(current_trace(), None);
                assert!(options().is_empty());
            });
        }
        assert!(remembered(TraceId(TRACE.0 + 1)).is_empty());
    }

    #[test]
    fn what_is_passed_on_names_the_current_span() {
        let subscriber = Registry::default().with(spans());
        let _default = tracing::subscriber::set_default(subscriber);
        let _entered = Place::beginning(None, "banger").enter();
        tracing::info_span!("banger").in_scope(|| {
            let options = options();
            let passed: &str = options[TRACEPARENT].downcast_ref().unwrap();
            let trace = current_trace().unwrap().to_string();
            assert!(passed.starts_with(&format!("00-{trace}-")) && passed.ends_with("-01"), "{passed}");
        });
    }
}
