//! What Vms1's messages say, as events: parsed here, once. What cannot be read says nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv4Addr;

use banger_schemas::vms;
use zbus::Message;
use zbus::fdo::ManagedObjects;
use zbus::names::InterfaceName;
use zbus::wire::{ObjectPath, Variant};

use crate::table::{Event, Facts};

const OBJECTS: &str = "org.freedesktop.DBus.ObjectManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// What a signal means for names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Event(Event),
    /// A property has changed and the signal does not say to what.
    Unsaid,
}

/// The news of a signal, if it is about a VM at all.
pub(crate) fn news(message: &Message) -> Option<News> {
    let header = message.header();
    let body = message.body();
    match (header.interface()?.as_str(), header.member()?.as_str()) {
        (OBJECTS, "InterfacesAdded") => {
            type Added<'m> = (ObjectPath<'m>, HashMap<InterfaceName<'m>, HashMap<&'m str, Variant<'m>>>);
            let (path, interfaces): Added<'_> = body.deserialize().ok()?;
            let properties = interfaces.get(vms::VM)?;
            Some(News::Event(Event::Appeared(path.to_string(), facts(properties.iter().map(|(k, v)| (*k, v))))))
        }
        (OBJECTS, "InterfacesRemoved") => {
            let (path, interfaces): (ObjectPath<'_>, Vec<InterfaceName<'_>>) = body.deserialize().ok()?;
            interfaces.iter().any(|i| i == vms::VM).then(|| News::Event(Event::Gone(path.to_string())))
        }
        (PROPERTIES, "PropertiesChanged") => {
            type Changed<'m> = (InterfaceName<'m>, HashMap<&'m str, Variant<'m>>, Cow<'m, [&'m str]>);
            let (interface, changed, unsaid): Changed<'_> = body.deserialize().ok()?;
            if interface != vms::VM {
                return None;
            }
            if unsaid.iter().any(|name| matches!(*name, "Name" | "State" | "HostAddress")) {
                return Some(News::Unsaid);
            }
            let facts = facts(changed.iter().map(|(k, v)| (*k, v)));
            // Most changes are about something else.
            (facts != Facts::default())
                .then(|| Some(News::Event(Event::Changed(header.path()?.to_string(), facts))))
                .flatten()
        }
        _ => None,
    }
}

/// The VMs of a listing.
pub(crate) fn listing(objects: &ManagedObjects) -> Event {
    let vm = |interfaces: &HashMap<_, HashMap<String, zbus::wire::OwnedVariant>>| {
        interfaces.get(vms::VM).map(|properties| facts(properties.iter().map(|(k, v)| (k.as_str(), &**v))))
    };
    Event::Listing(objects.iter().filter_map(|(path, i)| Some((path.to_string(), vm(i)?))).collect())
}

fn facts<'v>(properties: impl Iterator<Item = (&'v str, &'v Variant<'v>)>) -> Facts {
    let mut facts = Facts::default();
    for (property, value) in properties {
        let text = <&str>::try_from(value).unwrap_or_default();
        match property {
            "Name" => {
                facts.name = text.parse().inspect_err(|error| tracing::warn!(%error, "a VM without a name")).ok();
            }
            "State" => facts.running = Some(text == "running"),
            "HostAddress" => facts.address = Some(text.parse::<Ipv4Addr>().ok()),
            _ => (),
        }
    }
    facts
}
