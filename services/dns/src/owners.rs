//! Who owns a name on the bus, and who comes after them. Never starts anybody.

use banger_bus::Service;
use banger_schemas::error::{Error, Kind, Result};
use futures_util::StreamExt;
use zbus::names::{BusName, OwnedUniqueName, UniqueName};
use zbus::wire::Optional;
use zbus::{MatchRule, Message, MessageStream, message};

const BUS: &str = "org.freedesktop.DBus";

/// A name's owners, one after the other.
pub(crate) struct Owners {
    /// Who it is now, as far as `changed` has come.
    pub(crate) now: Option<OwnedUniqueName>,
    changes: MessageStream,
}

impl Owners {
    pub(crate) async fn of(service: &Service, name: &'static str) -> Result<Self> {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(BUS)
            .interface(BUS)
            .member("NameOwnerChanged")
            .arg(0, name)
            .build()?;
        let changes = MessageStream::for_match_rule(rule, service.connection(), None).await?;
        let name = BusName::try_from(name).map_err(Error::internal)?;
        let now = match service.bus().get_name_owner(name).await {
            Ok(owner) => Some(owner),
            // The usual case at start.
            Err(zbus::fdo::Error::NameHasNoOwner(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Owners { now, changes })
    }

    /// Comes back when it is somebody else, or nobody. May be left and asked again.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        loop {
            match self.changes.next().await {
                None => return Err(Error::new(Kind::Unavailable, "the bus went away")),
                Some(message) => {
                    if let Some(owner) = successor(&message?) {
                        self.now = owner;
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The new owner, if it is the bus that says so.
fn successor(message: &Message) -> Option<Option<OwnedUniqueName>> {
    if message.header().sender().is_none_or(|sender| sender != BUS) {
        return None;
    }
    let body = message.body();
    let (_name, _old, new): (&str, &str, Optional<UniqueName<'_>>) = body.deserialize().ok()?;
    Some(Option::from(new).map(|name: UniqueName<'_>| name.to_owned().into()))
}
