//! Properties are read from a snapshot, and changed signals come from comparing snapshots. Everybody on the bus can
//! hear a signal, so it says which properties have changed and not to what: who may read them reads them.

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

/// The properties that differ, in order.
fn changed<S: Snapshot>(old: &S, new: &S) -> Vec<&'static str> {
    let before = old.values();
    let mut names: Vec<_> = new
        .values()
        .into_iter()
        .filter(|(name, value)| before.get(name) != Some(value))
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    names
}

/// Emits `PropertiesChanged` for exactly what differs; nothing when nothing does.
async fn publish_changes<S: Snapshot>(connection: &Connection, path: &str, old: &S, new: &S) -> Result<()> {
    let names = changed(old, new);
    if names.is_empty() {
        return Ok(());
    }
    let emitter = SignalEmitter::new(connection, path)?;
    let interface = InterfaceName::from_static_str_unchecked(S::INTERFACE);
    Ok(Properties::properties_changed(&emitter, interface, HashMap::new(), Cow::Owned(names)).await?)
}

/// Signals an object's changes for as long as somebody may change it and `goes_on` says so.
pub async fn publish<S: Snapshot + Clone>(
    connection: Connection,
    path: String,
    mut changes: tokio::sync::watch::Receiver<S>,
    goes_on: impl Fn(&S) -> bool,
) {
    let mut last = changes.borrow_and_update().clone();
    while goes_on(&last) && changes.changed().await.is_ok() {
        let now = changes.borrow_and_update().clone();
        if let Err(error) = publish_changes(&connection, &path, &last, &now).await {
            tracing::debug!(%error, path, "a change was not signaled");
        }
        last = now;
    }
}
