//! An update: a newer command asks an older background process to make room. Nothing is lost by that, since VMs
//! outlive it; only jobs that run are waited for.

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::{images, vms};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use super::idle::job_runs;

/// Whether the services on this bus are older than this program and are ending now. Older ones that work on
/// something are left alone, and newer ones are used: a released interface only grows.
pub(super) async fn make_room(bus: &Connection) -> Result<bool> {
    let running = vms::ManagerProxy::new(bus).await?.version().await?;
    if !is_older(&running, env!("CARGO_PKG_VERSION")) {
        return Ok(false);
    }
    if job_runs(bus, vms::NAME, vms::PATH).await? || job_runs(bus, images::NAME, images::PATH).await? {
        return Ok(false);
    }
    let name = BusName::try_from(vms::NAME).map_err(Error::internal)?;
    let pid = DBusProxy::new(bus).await?.get_connection_unix_process_id(name).await?;
    tracing::info!(running, "an older background process makes room");
    let pid = Pid::from_raw(i32::try_from(pid).map_err(Error::internal)?);
    kill(pid, Signal::SIGTERM)
        .map_err(|e| Error::new(Kind::Unavailable, format!("the older background process {pid} stays: {e}")))?;
    // Its bus goes last of all.
    bus.closed().await;
    Ok(true)
}

fn is_older(running: &str, mine: &str) -> bool {
    let parse = |version: &str| version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    match (parse(running), parse(mine)) {
        (Some(running), Some(mine)) => running < mine,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers_and_what_is_none_is_never_older() {
        assert!(is_older("0.9.0", "0.10.0") && is_older("0.1.0", "1.0.0"));
        assert!(!is_older("0.1.0", "0.1.0") && !is_older("2.0.0", "1.9.9") && !is_older("dev", "1.0.0"));
    }
}
