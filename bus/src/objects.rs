//! Published objects: properties are read from a snapshot, and changed signals come from comparing snapshots.

use std::borrow::Cow;
use std::collections::HashMap;

use banger_schemas::error::Result;
use zbus::Connection;
use zbus::fdo::Properties;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::wire::OwnedVariant;

/// Properties by name.
pub type Values = HashMap<&'static str, OwnedVariant>;

/// The state of an object as it is published.
pub trait Snapshot {
    const INTERFACE: &'static str;

    /// The properties that may change.
    fn values(&self) -> Values;
}

/// Emits `PropertiesChanged` for exactly what differs; nothing when nothing does.
pub async fn publish_changes<S: Snapshot>(connection: &Connection, path: &str, old: &S, new: &S) -> Result<()> {
    let before = old.values();
    let after = new.values();
    let changed: HashMap<&str, _> = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| (*name, (**value).clone()))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let emitter = SignalEmitter::new(connection, path)?;
    let interface = InterfaceName::from_static_str_unchecked(S::INTERFACE);
    Ok(Properties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await?)
}
