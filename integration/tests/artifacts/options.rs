//! Dictionaries are closed: a key that is not known is refused by its name, by every method that takes one.

use banger_schemas::error::{Error, Kind};
use banger_schemas::options::{Dict, DictBuilder, TRACEPARENT};
use zbus::Signature;
use zbus::wire::Variant;
use zbus_xml::{Arg, ArgDirection, Interface, Method};

use crate::live::{Face, Live};
use crate::{documents, placeholder};

const DICT: &str = "a{sv}";

/// Arguments of a call.
fn arguments<'m>(method: &'m Method<'_>) -> impl Iterator<Item = &'m Signature> {
    method.args().iter().filter(|arg| arg.direction() != Some(ArgDirection::Out)).map(Arg::ty)
}

/// Every method with its dictionaries, by their place among the arguments.
fn methods<'i>(interface: &'i Interface<'_>) -> impl Iterator<Item = (&'i Method<'i>, Vec<usize>)> {
    let dictionaries = |method| arguments(method).enumerate().filter(|(_, t)| *t == DICT).map(|(i, _)| i).collect();
    interface.methods().map(move |method| (method, dictionaries(method)))
}

/// Calls a method with nothing in particular, but for this dictionary; its error.
async fn call(live: &Live, face: &Face, interface: &str, method: &Method<'_>, place: usize, dict: &Dict) -> Error {
    let value = |(i, signature): (usize, &Signature)| match signature == DICT {
        true if i == place => Variant::from(dict.clone()),
        true => Variant::from(Dict::new()),
        false => placeholder::value(signature),
    };
    let body = placeholder::body(arguments(method).enumerate().map(value));
    let (service, path) = (face.service.as_str(), face.path.as_str());
    let name = method.name();
    let reply = live.bus.call_method(Some(service), path, Some(interface), name.as_str(), &body).await;
    reply.expect_err(&format!("{interface}.{name} took {dict:?}")).into()
}

#[tokio::test]
async fn what_no_method_knows_is_refused_by_name() {
    let live = Live::start().await;
    let unknown = DictBuilder::default().set("no-such-option", true).build();
    let wrong = DictBuilder::default().set(TRACEPARENT, true).build();
    let mut asked = 0;
    for interface in documents::interfaces() {
        let name = interface.name();
        let face = &live.faces[name.as_str()];
        for (method, places) in methods(&interface) {
            for place in places {
                let error = call(&live, face, name.as_str(), method, place, &unknown).await;
                let expected = Error::new(Kind::UnknownOption, "unknown option: no-such-option");
                assert_eq!(error, expected, "{name}.{}, argument {place}", method.name());
                let error = call(&live, face, name.as_str(), method, place, &wrong).await;
                let expected = Error::invalid("option 'traceparent' cannot be of type 'b'");
                assert_eq!(error, expected, "{name}.{}, argument {place}", method.name());
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "only {asked} methods were asked");
}

#[test]
fn every_method_that_changes_something_takes_options() {
    /// Methods that only look, or that have one meaning for ever.
    const PLAIN: &[&str] =
        &["Cancel", "Wait", "Get", "Holders", "List", "Metrics", "Notes", "Probe", "Room", "Show", "Usage"];
    for interface in documents::interfaces() {
        for method in interface.methods().filter(|m| !PLAIN.contains(&m.name().as_str())) {
            let last = arguments(method).last();
            assert!(last.is_some_and(|t| t == DICT), "{}.{} takes no options", interface.name(), method.name());
        }
    }
}
