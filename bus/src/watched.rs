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
    let header = message.header();
    let service = service(header.path().map_or("", |path| path.as_str()));
    let method = method(service, interface, member);
    let span = {
        let _place = Place::of_call(traceparent(message).as_deref(), service).enter();
        tracing::info_span!("call", what = method)
    };
    let begun = Instant::now();
    let outcome = work.instrument(span).await;
    metrics::called(method, begun.elapsed());
    outcome
}

/// `Vms1` of `/dev/banger/Vms1/vm/ID`.
fn service(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or(path)
}

/// Short, and of this service alone: `Vms1.Create` for the manager's, `Vms1.Vm.Start`, `Vms1.Job1.Wait`.
fn method(service: &str, interface: &str, member: &str) -> String {
    let own = interface.strip_prefix("dev.banger.").unwrap_or(interface);
    match own.strip_prefix(service).unwrap_or(own).trim_start_matches('.') {
        "Manager" => format!("{service}.{member}"),
        face => format!("{service}.{face}.{member}"),
    }
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
        let name = |path, interface| method(service(path), interface, "Do");
        assert_eq!(name("/dev/banger/Vms1", "dev.banger.Vms1.Manager"), "Vms1.Do");
        assert_eq!(name("/dev/banger/Vms1/vm/abc", "dev.banger.Vms1.Vm"), "Vms1.Vm.Do");
        assert_eq!(name("/dev/banger/Images1/job/7", "dev.banger.Job1"), "Images1.Job1.Do");
        assert_eq!(name("/x", "org.example.X"), "/x.org.example.X.Do");
    }
}
