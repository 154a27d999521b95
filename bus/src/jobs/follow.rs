//! The client's side of a job: wait for its end, and hear of its progress.

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::{JobProxy, Progress, outcome};
use banger_schemas::options::Dict;
use futures_util::StreamExt;
use zbus::Connection;
use zbus::wire::OwnedObjectPath;

use crate::again;

/// Waits for a job of `service` to end. There is no deadline: a service that goes away and does not come back ends the
/// wait, or one that comes back without the job.
pub async fn follow(
    connection: &Connection,
    service: &'static str,
    path: OwnedObjectPath,
    mut progress: impl FnMut(Progress),
) -> Result<Dict> {
    let job = JobProxy::builder(connection).destination(service).path(path).build().await?;
    let mut changes = job.receive_progress_changed().await;
    let wait = ended(service, &job);
    tokio::pin!(wait);
    loop {
        tokio::select! {
            reply = &mut wait => return reply,
            Some(change) = changes.next() => {
                if let Ok((stage, done, total, unit)) = change.get().await {
                    progress(Progress { stage, done, total, unit });
                }
            }
        }
    }
}

/// The end of a job. A method call has a deadline and this wait has none, so it is asked again; and so it is where the
/// service went away meanwhile: a job outlives it.
async fn ended(service: &str, job: &JobProxy<'_>) -> Result<Dict> {
    loop {
        let error = match again(|| job.wait()).await {
            Ok(reply) => return outcome(reply),
            Err(error) => Error::from(error),
        };
        match error.kind {
            Kind::Timeout => {}
            // It did not come back, or not with the job.
            Kind::Unavailable | Kind::NotFound => {
                return Err(Error::new(Kind::Unavailable, format!("{service} went away while it worked")));
            }
            _ => return Err(error),
        }
    }
}
