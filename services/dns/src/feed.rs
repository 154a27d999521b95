//! Follows Vms1: who owns its name, what is listed, what its signals say since. Never starts it.
//!
//! Signals are taken from the owner's unique name, because only that is compared with the sender of a message: of a
//! well-known name anybody could claim to be the owner. VMs outlive the service, so the answers stay when the owner
//! goes and are replaced as a whole by what its successor lists.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::time::Duration;

use banger_bus::effects::within;
use banger_bus::{Door, Service};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::vms;
use futures_util::StreamExt;
use tokio::time::Instant;
use zbus::fdo::ManagedObjects;
use zbus::message::Type;
use zbus::names::OwnedUniqueName;
use zbus::{Connection, MatchRule, Message, MessageStream};

use crate::actor::{Learned, Names};
use crate::owners::Owners;
use crate::signals::{News, listing, news};
use crate::table::Event;

const DEADLINE: Duration = Duration::from_secs(10);
/// Rest before the next try with an owner that failed us, doubled each time; and between two listings.
const FIRST_REST: Duration = Duration::from_millis(250);
const LAST_REST: Duration = Duration::from_secs(30);
/// Signals that may wait; beyond it the whole connection waits.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Follows every owner that Vms1 has.
pub(crate) async fn follow(service: Service, door: Door<Names>) {
    loop {
        match follow_owners(&service, &door).await {
            Ok(never) => match never {},
            Err(error) => tracing::warn!(%error, "cannot follow {}: trying again", vms::NAME),
        }
        tokio::time::sleep(LAST_REST).await;
    }
}

async fn follow_owners(service: &Service, door: &Door<Names>) -> Result<Infallible> {
    let connection = service.connection();
    let mut owners = Owners::of(service, vms::NAME).await?;
    loop {
        match owners.now.clone() {
            None => owners.changed().await?,
            Some(owner) => tokio::select! {
                changed = owners.changed() => changed?,
                never = follow_owner(connection, &owner, door) => match never {},
            },
        }
    }
}

/// Follows one owner; what fails is tried again, since it may only have been slow.
async fn follow_owner(connection: &Connection, owner: &OwnedUniqueName, door: &Door<Names>) -> Infallible {
    let mut rest = FIRST_REST;
    loop {
        let begun = Instant::now();
        match learn(connection, owner, door, &mut rest).await {
            // The first of many changes is looked up at once, the others together.
            Ok(()) => tokio::time::sleep_until(begun + FIRST_REST).await,
            Err(error) => {
                tracing::warn!(%error, "what {} says cannot be followed: trying again", vms::NAME);
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(LAST_REST);
            }
        }
    }
}

/// Subscribes, lists, and learns what comes, until a signal leaves its news unsaid.
async fn learn(
    connection: &Connection,
    owner: &OwnedUniqueName,
    door: &Door<Names>,
    rest: &mut Duration,
) -> Result<()> {
    // One rule for all signals, since the order between kinds of them matters.
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(owner.as_str()).path_namespace(vms::PATH).build()?;
    let mut signals = MessageStream::for_match_rule(rule, connection, Some(QUEUE)).await?;
    let listed = list(connection, owner, &mut signals).await?;
    door.ask(Learned(listed.events)).await?;
    *rest = FIRST_REST;
    if listed.unsaid {
        return Ok(());
    }
    loop {
        match news(&next(&mut signals).await?) {
            None => (),
            Some(News::Event(event)) => door.ask(Learned(vec![event])).await?,
            Some(News::Unsaid) => return Ok(()),
        }
    }
}

struct Listed {
    events: Vec<Event>,
    unsaid: bool,
}

/// Everything there is, and what happened while it was collected: a listing is read object by object, so a signal
/// that comes before it can be newer.
async fn list(connection: &Connection, owner: &OwnedUniqueName, signals: &mut MessageStream) -> Result<Listed> {
    let reply = within("listing the VMs", DEADLINE, async {
        let interface = Some("org.freedesktop.DBus.ObjectManager");
        let reply =
            connection.call_method(Some(owner.as_str()), vms::PATH, interface, "GetManagedObjects", &()).await?;
        Ok(reply.body().deserialize::<ManagedObjects>()?)
    });
    tokio::pin!(reply);
    let (mut since, mut unsaid) = (Vec::new(), false);
    let objects = loop {
        // The signals must be taken meanwhile: a full queue would hold up the reply.
        tokio::select! {
            objects = &mut reply => break objects?,
            signal = next(signals) => match news(&signal?) {
                None => (),
                Some(News::Event(event)) => since.push(event),
                Some(News::Unsaid) => unsaid = true,
            },
        }
    };
    since.insert(0, listing(&objects));
    Ok(Listed { events: since, unsaid })
}

async fn next(signals: &mut MessageStream) -> Result<Message> {
    match signals.next().await {
        Some(message) => Ok(message?),
        None => Err(Error::new(Kind::Unavailable, "the bus went away")),
    }
}
