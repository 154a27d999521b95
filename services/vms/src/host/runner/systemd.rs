//! What is asked of systemd: org.freedesktop.systemd1(5), as far as it is needed.

use std::time::Duration;

use banger_bus::effects::within;
use banger_schemas::error::{Error, Kind, Result};
use futures_util::StreamExt;
use zbus::proxy;
use zbus::wire::{OwnedObjectPath, Variant};

/// Jobs of a VM's unit end in a second; its processes are killed after five.
const JOB: Duration = Duration::from_secs(20);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn set_unit_properties(&self, name: &str, runtime: bool, properties: &[(&str, Variant<'_>)]) -> zbus::Result<()>;
    #[allow(clippy::type_complexity, reason = "the row that systemd defines")]
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<
        Vec<(String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath)>,
    >;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// systemd of this host.
#[derive(Debug, Clone)]
pub(super) struct Systemd {
    manager: ManagerProxy<'static>,
}

/// A unit that is not loaded.
fn is_missing(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

fn refused(what: &str, unit: &str, error: &zbus::Error) -> Error {
    Error::new(Kind::Unavailable, format!("systemd does not {what} {unit}: {error}"))
}

impl Systemd {
    pub(super) async fn connect(connection: &zbus::Connection) -> Result<Self> {
        let manager = ManagerProxy::new(connection).await?;
        // From now on it tells of the end of jobs.
        manager.subscribe().await.or_else(already)?;
        Ok(Systemd { manager })
    }

    /// Starts a unit and waits until it is up.
    pub(super) async fn start(&self, unit: &str) -> Result<()> {
        match self.job("start", unit, self.manager.start_unit(unit, "replace")).await? {
            Some(result) if result == "done" => Ok(()),
            result => Err(Error::new(
                Kind::Internal,
                format!("{unit} did not start ({}): 'journalctl -u {unit}' has more", result.unwrap_or_default()),
            )),
        }
    }

    /// Stops a unit and waits until it is down. Whether there was one.
    pub(super) async fn stop(&self, unit: &str) -> Result<bool> {
        Ok(self.job("stop", unit, self.manager.stop_unit(unit, "replace")).await?.is_some())
    }

    /// The result of the job that is asked for; none when there is no such unit.
    async fn job(
        &self,
        what: &str,
        unit: &str,
        asked: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<Option<String>> {
        // Heard from before it is asked for, so that no end is missed.
        let mut ends = self.manager.receive_job_removed().await?;
        let job = match asked.await {
            Ok(job) => job,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(refused(what, unit, &error)),
        };
        within("systemd", JOB, async {
            while let Some(end) = ends.next().await {
                let end = end.args()?;
                if *end.job() == job {
                    return Ok(Some(end.result().clone()));
                }
            }
            Err(Error::new(Kind::Unavailable, "the bus went away"))
        })
        .await
    }

    /// Kills every process of a unit at once. Whether there was one.
    pub(super) async fn kill(&self, unit: &str) -> Result<bool> {
        match self.manager.kill_unit(unit, "all", nix::libc::SIGKILL).await {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(refused("kill", unit, &error)),
        }
    }

    /// Sets properties of a unit until it is stopped.
    pub(super) async fn set(&self, unit: &str, properties: &[(&str, Variant<'_>)]) -> Result<()> {
        let set = self.manager.set_unit_properties(unit, true, properties).await;
        set.map_err(|error| refused("limit", unit, &error))
    }

    /// Loaded units of a pattern: name, active state.
    pub(super) async fn list(&self, pattern: &str) -> Result<Vec<(String, String)>> {
        let rows = self.manager.list_units_by_patterns(&[], &[pattern]).await?;
        Ok(rows.into_iter().map(|row| (row.0, row.3)).collect())
    }
}

/// Subscribing twice is no mistake: the answer to the first may have been lost.
fn already(error: zbus::Error) -> zbus::Result<()> {
    match &error {
        zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" => Ok(()),
        _ => Err(error),
    }
}
