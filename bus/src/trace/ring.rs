//! The last spans of this process, of traces that somebody asked for: bounded, and lost with the process. Whoever
//! asked collects them (`Observe1.Spans`), since a service of a host has no network to send them by.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_schemas::observe::{Span, TraceId};
use opentelemetry::trace::{SpanId, Status};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};

use super::Worker;

/// A machine's whole life is some 40 spans.
const SPANS: usize = 4096;
const BYTES: usize = 1024 * 1024;

/// Fields of `tracing` spans that are more than attributes.
const WHAT: &str = "what";
const ERROR: &str = "error";
const WORKER: &str = "worker";

/// The process's.
pub(super) static RING: LazyLock<Ring> = LazyLock::new(Ring::default);

#[derive(Debug, Clone, Default)]
pub(super) struct Ring(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    spans: VecDeque<(TraceId, Span)>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, trace: TraceId, span: Span) {
        self.bytes += size(&span);
        self.spans.push_back((trace, span));
        while self.spans.len() > SPANS || self.bytes > BYTES {
            let Some((_, oldest)) = self.spans.pop_front() else { return };
            self.bytes -= size(&oldest);
        }
    }
}

/// Roughly what a span takes.
fn size(span: &Span) -> usize {
    let attributes: usize = span.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    size_of::<Span>() + span.name.len() + span.service.len() + span.error.len() + attributes
}

impl Ring {
    /// Those of this trace, in the order that they ended.
    pub(super) fn of(&self, trace: TraceId) -> Vec<Span> {
        let Ok(kept) = self.0.lock() else { return Vec::new() };
        kept.spans.iter().filter(|(of, _)| *of == trace).map(|(_, span)| span.clone()).collect()
    }
}

impl SpanProcessor for Ring {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, parent: &Context) {
        if let Some(Worker(name)) = parent.get() {
            opentelemetry::trace::Span::set_attribute(span, KeyValue::new(WORKER, name.clone()));
        }
    }

    fn on_end(&self, span: SpanData) {
        let trace = TraceId(u128::from_be_bytes(span.span_context.trace_id().to_bytes()));
        if let Ok(mut kept) = self.0.lock() {
            kept.push(trace, told(span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The span as it is told.
fn told(span: SpanData) -> Span {
    let id = |id: SpanId| u64::from_be_bytes(id.to_bytes());
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut attributes: BTreeMap<String, String> =
        span.attributes.iter().map(|pair| (pair.key.to_string(), pair.value.to_string())).collect();
    let failed = match span.status {
        Status::Error { description } => description.into_owned(),
        Status::Unset | Status::Ok => String::new(),
    };
    Span {
        name: attributes.remove(WHAT).unwrap_or_else(|| span.name.into_owned()),
        service: attributes.remove(WORKER).unwrap_or_default(),
        id: id(span.span_context.span_id()),
        parent: id(span.parent_span_id),
        start: nanoseconds(span.start_time.duration_since(UNIX_EPOCH).unwrap_or_default()),
        duration: nanoseconds(since(span.start_time, span.end_time)),
        error: attributes.remove(ERROR).unwrap_or(failed),
        attributes,
    }
}

/// A clock that was set meanwhile makes nothing last less than no time.
fn since(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(error: String) -> Span {
        let (name, service) = ("n".into(), "s".into());
        Span { name, service, id: 1, parent: 0, start: 0, duration: 0, error, attributes: BTreeMap::new() }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut kept = Kept::default();
        for number in 0..10_000u128 {
            kept.push(TraceId(number), span(String::new()));
        }
        assert!(kept.spans.len() <= SPANS && kept.bytes <= BYTES);
        assert_eq!(kept.spans.back().unwrap().0, TraceId(9999));
        assert_eq!(kept.bytes, kept.spans.iter().map(|(_, span)| size(span)).sum::<usize>());
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large_and_one_that_is_larger_than_all_is_not_kept() {
        let mut kept = Kept::default();
        for number in 0..100u128 {
            kept.push(TraceId(number), span("x".repeat(BYTES / 10)));
            assert!(kept.bytes <= BYTES);
        }
        assert_eq!(kept.spans.len(), 9);
        kept.push(TraceId(100), span("x".repeat(BYTES)));
        assert_eq!((kept.spans.len(), kept.bytes), (0, 0));
    }
}
