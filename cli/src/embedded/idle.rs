//! When the background process may end: no VM is up, no job runs, nobody is connected. Asked only when something
//! on the bus changed, so that a process that waits costs nothing.

use std::time::Duration;

use banger_bus::service::{Address, terminated};
use banger_schemas::error::Result;
use banger_schemas::{images, job, vms};
use futures_util::StreamExt;
use zbus::Connection;
use zbus::fdo::{DBusProxy, ObjectManagerProxy};
use zbus::names::BusName;
use zbus::wire::OwnedVariant;

/// After the last need for it.
const LINGER: Duration = Duration::from_secs(20);
/// Services, this connection, and the bus itself, whose name counts as a unique one.
const OWN: usize = 8;

/// Returns when the process may end.
pub(super) async fn wait(address: &Address) -> Result<()> {
    let bus = address.connect().await?;
    let dbus = DBusProxy::new(&bus).await?;
    let mut comings_and_goings = dbus.receive_name_owner_changed().await?;
    let linger = std::env::var("BANGER_LINGER_SECONDS").ok().and_then(|s| s.parse().ok());
    let linger = linger.map_or(LINGER, Duration::from_secs);
    let stop = terminated();
    tokio::pin!(stop);
    loop {
        // A VM that goes down does so for a client that then leaves, or by itself: the second is looked for less often.
        let needed = is_needed(&bus, &dbus).await?;
        let patience = if needed { Duration::from_secs(300) } else { linger };
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = comings_and_goings.next() => (),
            () = tokio::time::sleep(patience) => {
                if !needed && !is_needed(&bus, &dbus).await? {
                    tracing::info!("nothing needs the services any more");
                    return Ok(());
                }
            }
        }
    }
}

async fn is_needed(bus: &Connection, dbus: &DBusProxy<'_>) -> Result<bool> {
    let names = dbus.list_names().await?;
    let clients = names.iter().filter(|n| matches!(n.inner(), BusName::Unique(_))).count();
    if clients > OWN {
        return Ok(true);
    }
    for (service, path) in [(vms::NAME, vms::PATH), (images::NAME, images::PATH)] {
        let objects = ObjectManagerProxy::builder(bus).destination(service).path(path).build().await?;
        let busy = objects.get_managed_objects().await?.into_values().flatten().any(|(interface, properties)| {
            let state = properties.get("State").map(text).unwrap_or_default();
            match interface.as_str() {
                vms::VM => !matches!(state.as_str(), "stopped" | "failed"),
                job::INTERFACE => state == job::State::Running.as_str(),
                _ => false,
            }
        });
        if busy {
            return Ok(true);
        }
    }
    Ok(false)
}

fn text(value: &OwnedVariant) -> String {
    value.downcast_ref::<&str>().unwrap_or_default().to_owned()
}
