//! Jobs: watched, waited for, canceled, kept for a while. A job has one writer, the [`Job`] handle of who does the
//! work; its D-Bus face reads a snapshot. Dropping the handle without an end fails the job: none hangs for ever.

mod face;
mod follow;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::{Progress, State};
use banger_schemas::options::Dict;
use tokio::sync::{Notify, watch};
use zbus::wire::{ObjectPath, OwnedObjectPath};

use crate::authorize::Authorizer;
use crate::caller::Callers;
use crate::metrics;
use crate::objects::{self, Tree};
use crate::trace::Place;
pub use follow::follow;

/// How long a job that has ended can be asked for its result.
const RETENTION: Duration = Duration::from_secs(600);
/// Ended jobs that are kept at once.
const KEPT: usize = 256;

/// A job as it stands.
#[derive(Debug, Clone)]
struct Snapshot {
    state: State,
    progress: Progress,
    result: Dict,
    error: Option<Error>,
}

#[derive(Debug)]
struct Shared {
    kind: &'static str,
    owner: u32,
    path: OwnedObjectPath,
    snapshot: watch::Sender<Snapshot>,
    cancel: Notify,
}

impl Shared {
    fn set_progress(&self, progress: Progress) {
        self.snapshot.send_if_modified(|s| {
            let changed = s.state == State::Running && s.progress != progress;
            if changed {
                s.progress = progress;
            }
            changed
        });
    }

    fn end(&self, outcome: Result<Dict>) {
        self.snapshot.send_if_modified(|s| {
            if s.state != State::Running {
                return false;
            }
            match outcome {
                Ok(result) => {
                    s.state = State::Done;
                    s.result = result;
                }
                Err(error) => {
                    s.state = match error.kind {
                        Kind::Canceled => State::Canceled,
                        Kind::Timeout => State::Timeout,
                        _ => State::Failed,
                    };
                    s.error = Some(error);
                }
            }
            metrics::job_ended(self.kind, s.state.as_str());
            true
        });
    }
}

/// The jobs of one service.
#[derive(Debug, Clone)]
pub struct Jobs {
    tree: Tree,
    root: &'static str,
    callers: Callers,
    authorizer: Arc<dyn Authorizer>,
    next: Arc<AtomicU64>,
    ended: Arc<Mutex<VecDeque<OwnedObjectPath>>>,
}

impl Jobs {
    pub(crate) fn new(tree: Tree, root: &'static str, callers: Callers, authorizer: Arc<dyn Authorizer>) -> Self {
        // Paths of two lives of a service never meet: they begin at the clock.
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let next = Arc::new(AtomicU64::new(u64::try_from(start).unwrap_or(0)));
        Jobs { tree, root, callers, authorizer, next, ended: Arc::default() }
    }

    /// Puts a new job on the bus.
    pub async fn create(&self, kind: &'static str, owner: u32) -> Result<Job> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = ObjectPath::try_from(format!("{}/job/{number}", self.root)).map_err(Error::internal)?;
        let snapshot =
            Snapshot { state: State::Running, progress: Progress::default(), result: Dict::new(), error: None };
        let shared = Arc::new(Shared {
            kind,
            owner,
            path: path.into(),
            snapshot: watch::Sender::new(snapshot),
            cancel: Notify::new(),
        });
        let face = face::JobFace::new(shared.clone(), self.callers.clone(), self.authorizer.clone());
        self.tree.publish(&shared.path, Some(owner), face).await?;
        let (changes, path) = (shared.snapshot.subscribe(), shared.path.to_string());
        tokio::spawn(objects::publish(self.tree.connection().clone(), path, changes, |s| s.state == State::Running));
        tokio::spawn(self.clone().retire_when_old(shared.clone()));
        let span = tracing::info_span!("job", what = format!("{kind} job"), error = tracing::field::Empty);
        Ok(Job { shared, span })
    }

    async fn retire_when_old(self, shared: Arc<Shared>) {
        let mut changes = shared.snapshot.subscribe();
        drop(changes.wait_for(|s| s.state != State::Running).await);
        let surplus = {
            let Ok(mut ended) = self.ended.lock() else { return };
            ended.push_back(shared.path.clone());
            if ended.len() > KEPT { ended.pop_front() } else { None }
        };
        if let Some(path) = surplus {
            self.remove(&path).await;
        }
        tokio::time::sleep(RETENTION).await;
        self.remove(&shared.path).await;
    }

    async fn remove(&self, path: &OwnedObjectPath) {
        if let Ok(mut ended) = self.ended.lock() {
            ended.retain(|p| p != path);
        }
        // Gone already is as good.
        drop(self.tree.retire::<face::JobFace>(path).await);
    }
}

/// The one who does the work holds this.
#[derive(Debug)]
pub struct Job {
    shared: Arc<Shared>,
    /// From the call that made the job to its end.
    span: tracing::Span,
}

impl Job {
    pub fn path(&self) -> OwnedObjectPath {
        self.shared.path.clone()
    }

    /// `create`, `start`, ….
    pub fn kind(&self) -> &'static str {
        self.shared.kind
    }

    /// What the job does now.
    pub fn stage(&self, stage: impl Into<String>) {
        self.progress(Progress { stage: stage.into(), ..Progress::default() });
    }

    pub fn progress(&self, progress: Progress) {
        self.shared.set_progress(progress);
    }

    /// Returns when somebody has asked the job to stop.
    pub fn canceled(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move { shared.cancel.notified().await }
    }

    /// A way to report progress from elsewhere (a worker thread), without the right to end the job.
    pub fn reporter(&self) -> Reporter {
        Reporter { shared: self.shared.clone() }
    }

    /// Where work is begun that the job is about.
    pub fn place(&self) -> Place {
        self.span.in_scope(Place::here)
    }

    /// The end. Only the first one counts.
    pub fn finish(self, outcome: Result<Dict>) {
        if let Err(error) = &outcome {
            self.span.record("error", error.message.as_str());
        }
        self.shared.end(outcome);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // A span that was entered has ended when it was left last.
        self.span.in_scope(|| ());
        self.shared.end(Err(Error::new(Kind::Gone, "what did this job went away before its end")));
    }
}

/// Reports the progress of a job.
#[derive(Debug, Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
}

impl Reporter {
    pub fn progress(&self, progress: Progress) {
        self.shared.set_progress(progress);
    }
}
