//! May this caller do this? Chosen once at start: the peer's uid in embedded mode; polkit on a real host.

mod peer_uid;
mod polkit;
mod questions;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use banger_schemas::action::Action;
use banger_schemas::error::{Error, Kind, Result};
use zbus::Connection;

use crate::Caller;
use crate::caller::Callers;
use crate::service::Address;
use peer_uid::PeerUid;
use polkit::Polkit;

/// What an administrator's rule can test: the VM, its owner, the image.
pub type Details<'a> = &'a [(&'a str, &'a str)];

/// An answer that may take as long as a person does.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Decides.
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// `Ok` when the caller may; an error that says what it lacks when not.
    fn check<'a>(&'a self, caller: &'a Caller, action: &'static Action, details: Details<'a>) -> Answer<'a>;

    /// Whether the caller may for what it is, so that nobody need be asked.
    fn lets_at_once(&self, caller: &Caller, action: &'static Action) -> bool;
}

/// Who decides on this bus: on the system's, where all users are, polkit; on any other, the uid.
pub(crate) async fn choose(address: &Address, bus: &Connection, callers: &Callers) -> Result<Arc<dyn Authorizer>> {
    Ok(match address {
        Address::System => Arc::new(Polkit::new(bus, callers.clone()).await?),
        Address::At(_) => Arc::new(PeerUid { owner: nix::unistd::geteuid().as_raw() }),
    })
}

fn not_authorized(message: String) -> Error {
    Error::new(Kind::NotAuthorized, message)
}
