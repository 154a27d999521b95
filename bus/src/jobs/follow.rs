//! The client's side of a job: wait for its end, and hear of its progress.

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::{JobProxy, Progress, outcome};
use banger_schemas::options::Dict;
use futures_util::StreamExt;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::wire::OwnedObjectPath;

/// Waits for a job of `service` to end. There is no deadline: the end of the service's name ends the wait instead.
pub async fn follow(
    connection: &Connection,
    service: &'static str,
    path: OwnedObjectPath,
    mut progress: impl FnMut(Progress),
) -> Result<Dict> {
    let job = JobProxy::builder(connection).destination(service).path(path).build().await?;
    let bus = DBusProxy::new(connection).await?;
    let mut owners = bus.receive_name_owner_changed_with_args(&[(0, service)]).await?;
    let mut changes = job.receive_progress_changed().await;
    let gone = || Error::new(Kind::Unavailable, format!("{service} went away while it worked"));
    if !bus.name_has_owner(BusName::try_from(service).map_err(Error::internal)?).await? {
        return Err(gone());
    }
    let wait = ended(&job);
    tokio::pin!(wait);
    loop {
        tokio::select! {
            reply = &mut wait => return reply,
            Some(_) = owners.next() => return Err(gone()),
            Some(change) = changes.next() => {
                if let Ok((stage, done, total, unit)) = change.get().await {
                    progress(Progress { stage, done, total, unit });
                }
            }
        }
    }
}

/// The end of a job. A method call has a deadline and this wait has none, so it is asked again.
async fn ended(job: &JobProxy<'_>) -> Result<Dict> {
    loop {
        match job.wait().await {
            Err(zbus::Error::InputOutput(error)) if error.kind() == std::io::ErrorKind::TimedOut => {}
            reply => return outcome(reply?),
        }
    }
}
