//! Who calls: the bus's word, never an argument. Cached by unique name, forgotten when the name goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use banger_schemas::error::{Error, Kind, Result};
use zbus::fdo::DBusProxy;
use zbus::message::Header;
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
        let sender = header.sender().ok_or_else(|| Error::new(Kind::NotAuthorized, "a call without a sender"))?;
        let name = OwnedUniqueName::from(sender.to_owned());
        if let Some(caller) = self.lookup(&name) {
            return Ok(caller);
        }
        let credentials = self.bus.get_connection_credentials(BusName::Unique(sender.clone())).await?;
        let uid = credentials
            .unix_user_id()
            .ok_or_else(|| Error::new(Kind::NotAuthorized, "the bus does not say who you are"))?;
        let caller = Caller { name: name.clone(), uid, pid: credentials.process_id() };
        if let Ok(mut known) = self.known.lock() {
            // Unique names are never reused, so a stale entry is harmless and the bound is all that matters.
            if known.len() >= CACHE {
                known.clear();
            }
            known.insert(name, caller.clone());
        }
        Ok(caller)
    }

    fn lookup(&self, name: &OwnedUniqueName) -> Option<Caller> {
        self.known.lock().ok()?.get(name).cloned()
    }
}
