//! When the background process may end: no VM is up, no job runs, nobody is connected. Asked only when something
//! on the bus changed, so that a process that waits costs nothing.

use std::time::Duration;

use banger_bus::service::Address;
use banger_bus::settings;
use banger_schemas::error::Result;
use banger_schemas::{images, job, vms};
use futures_util::StreamExt;
use zbus::Connection;
use zbus::fdo::{DBusProxy, ObjectManagerProxy};
use zbus::names::BusName;

/// After the last need for it.
const LINGER: Duration = Duration::from_secs(20);
/// Services, this connection, and the bus itself, whose name counts as a unique one.
const OWN: usize = 8;

/// Returns when the process may end.
pub(super) async fn wait(address: &Address, stop: impl Future<Output = ()>) -> Result<()> {
    let bus = address.connect().await?;
    let dbus = DBusProxy::new(&bus).await?;
    let mut comings_and_goings = dbus.receive_name_owner_changed().await?;
    let linger = settings::get().linger_seconds.map_or(LINGER, Duration::from_secs);
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
    let vm_is_up = |interface: &str, state: &str| interface == vms::VM && !matches!(state, "stopped" | "failed");
    Ok(any(bus, vms::NAME, vms::PATH, vm_is_up).await?
        || job_runs(bus, vms::NAME, vms::PATH).await?
        || job_runs(bus, images::NAME, images::PATH).await?)
}

/// Whether a service works on something.
pub(super) async fn job_runs(bus: &Connection, service: &'static str, path: &'static str) -> Result<bool> {
    any(bus, service, path, |interface, state| interface == job::INTERFACE && state == job::State::Running.as_str())
        .await
}

/// Whether the service has an object with such an interface in such a state.
async fn any(
    bus: &Connection,
    service: &'static str,
    path: &'static str,
    such: impl Fn(&str, &str) -> bool,
) -> Result<bool> {
    let objects = ObjectManagerProxy::builder(bus).destination(service).path(path).build().await?;
    Ok(objects.get_managed_objects().await?.into_values().flatten().any(|(interface, properties)| {
        let state = properties.get("State").and_then(|state| state.downcast_ref::<&str>().ok());
        such(interface.as_str(), state.unwrap_or_default())
    }))
}
