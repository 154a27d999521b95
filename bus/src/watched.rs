//! Calls of methods, traced and timed whatever the method does: spans and numbers are not each one's own business.

use std::time::Instant;

use banger_schemas::options::TRACEPARENT;
use tracing::Instrument;
use zbus::message::Message;
use zbus::wire::{Structure, Variant};

use crate::metrics;
use crate::trace::Place;

/// A call's work, which is a child of the caller's span if the caller wants to be traced.
pub(crate) async fn watched<T>(interface: &str, member: &str, message: &Message, work: impl Future<Output = T>) -> T {
    let method = method(interface, member);
    let span = span(&method, message);
    let begun = Instant::now();
    let outcome = work.instrument(span).await;
    metrics::called(method, begun.elapsed());
    outcome
}

/// `Vms1.Create` for `dev.banger.Vms1.Manager` and `Create`, `Vms1.Vm.Start` for that of a VM.
fn method(interface: &str, member: &str) -> String {
    let short = interface.strip_prefix("dev.banger.").unwrap_or(interface);
    format!("{}.{member}", short.strip_suffix(".Manager").unwrap_or(short))
}

fn span(method: &str, message: &Message) -> tracing::Span {
    let service = method.split('.').next().unwrap_or(method);
    let _entered = Place::of_call(traceparent(message).as_deref(), service).enter();
    tracing::info_span!("call", what = method)
}

/// The caller's trace context, in the options that a method ends with.
fn traceparent(message: &Message) -> Option<String> {
    let body = message.body();
    // Few calls have one: the others are looked at no further.
    if !body.data().windows(TRACEPARENT.len()).any(|bytes| bytes == TRACEPARENT.as_bytes()) {
        return None;
    }
    let arguments: Structure<'_> = body.deserialize().ok()?;
    let Some(Variant::Dict(options)) = arguments.fields().last() else { return None };
    options.get::<_, &str>(&TRACEPARENT).ok()?.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_schemas::options::{Dict, DictBuilder};

    fn message<B: serde::Serialize + zbus::wire::DynamicType>(body: &B) -> Message {
        Message::method_call("/x", "Create").build(body).unwrap()
    }

    #[test]
    fn the_trace_context_is_found_behind_any_arguments() {
        let options = || DictBuilder::default().set(TRACEPARENT, "00-1-2-01").set("other", 7u32).build();
        assert_eq!(traceparent(&message(&options())).as_deref(), Some("00-1-2-01"));
        assert_eq!(traceparent(&message(&("vm", 5u64, Dict::new(), options()))).as_deref(), Some("00-1-2-01"));
        for without in [message(&("traceparent", Dict::new())), message(&"traceparent"), message(&())] {
            assert_eq!(traceparent(&without), None);
        }
        let of_another_type = DictBuilder::default().set(TRACEPARENT, true).build();
        assert_eq!(traceparent(&message(&(of_another_type,))), None);
    }

    #[test]
    fn methods_have_short_names() {
        assert_eq!(method("dev.banger.Vms1.Manager", "Create"), "Vms1.Create");
        assert_eq!(method("dev.banger.Vms1.Vm", "Start"), "Vms1.Vm.Start");
        assert_eq!(method("dev.banger.Observe1", "Spans"), "Observe1.Spans");
    }
}
