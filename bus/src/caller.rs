//! Who calls: the bus's word, never an argument. Cached by unique name, forgotten when the name goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use banger_schemas::error::{Error, Kind, Result};
use futures_util::StreamExt;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus::names::{BusName, OwnedUniqueName};

/// Callers that are remembered at once.
const CACHE: usize = 1024;

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its unique name: polkit's subject, and what a lease is tied to.
    pub name: OwnedUniqueName,
    pub uid: u32,
    /// Only for finding the client again after everything was killed; never for a decision.
    pub pid: Option<u32>,
    /// Whether this call may wait for a person to answer (`ALLOW_INTERACTIVE_AUTHORIZATION` of its message).
    pub interactive: bool,
}

#[cfg(test)]
impl Caller {
    pub(crate) fn of_uid(uid: u32) -> Self {
        Caller { name: OwnedUniqueName::try_from(":1.1").unwrap(), uid, pid: None, interactive: false }
    }
}

/// Looks callers up.
#[derive(Debug, Clone)]
pub struct Callers {
    bus: DBusProxy<'static>,
    // Never held over an await.
    known: Arc<Mutex<HashMap<OwnedUniqueName, Caller>>>,
}

impl Callers {
    pub(crate) fn new(bus: DBusProxy<'static>) -> Self {
        Callers { bus, known: Arc::default() }
    }

    /// The sender of this message.
    pub async fn of(&self, header: &Header<'_>) -> Result<Caller> {
        let interactive = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        Ok(Caller { interactive, ..self.who(header).await? })
    }

    async fn who(&self, header: &Header<'_>) -> Result<Caller> {
        let sender = header.sender().ok_or_else(|| Error::new(Kind::NotAuthorized, "a call without a sender"))?;
        let name = OwnedUniqueName::from(sender.to_owned());
        if let Some(caller) = self.lookup(&name) {
            return Ok(caller);
        }
        let credentials = self.bus.get_connection_credentials(BusName::Unique(sender.clone())).await?;
        let uid = credentials
            .unix_user_id()
            .ok_or_else(|| Error::new(Kind::NotAuthorized, "the bus does not say who you are"))?;
        let caller = Caller { name: name.clone(), uid, pid: credentials.process_id(), interactive: false };
        if let Ok(mut known) = self.known.lock() {
            // Unique names are never reused, so a stale entry is harmless and the bound is all that matters.
            if known.len() >= CACHE {
                known.clear();
            }
            known.insert(name, caller.clone());
        }
        Ok(caller)
    }

    /// Returns when this caller has left the bus.
    pub(crate) async fn gone(&self, name: &OwnedUniqueName) {
        gone(&self.bus, name).await;
    }

    fn lookup(&self, name: &OwnedUniqueName) -> Option<Caller> {
        self.known.lock().ok()?.get(name).cloned()
    }
}

/// Returns when the bus says that the name has no owner. The end of the bus is no such word.
pub async fn gone(bus: &DBusProxy<'_>, name: &str) {
    if let Err(error) = lost(bus, name).await {
        tracing::warn!(%error, name, "this name is no longer watched");
        std::future::pending::<()>().await;
    }
}

async fn lost(bus: &DBusProxy<'_>, name: &str) -> Result<()> {
    let mut changes = bus.receive_name_owner_changed_with_args(&[(0, name)]).await?;
    // It may have gone before the subscription.
    if !bus.name_has_owner(BusName::try_from(name).map_err(Error::internal)?).await? {
        return Ok(());
    }
    while let Some(change) = changes.next().await {
        if change.args()?.new_owner().is_none() {
            return Ok(());
        }
    }
    Err(Error::new(Kind::Unavailable, "the bus went away"))
}
