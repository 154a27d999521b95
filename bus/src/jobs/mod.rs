//! Jobs: watched, waited for, canceled, kept for a while. A job has one writer, the [`Job`] handle of who does the
//! work; its D-Bus face reads a snapshot. Dropping the handle without an end fails the job: none hangs for ever.
//!
//! A job whose work is [kept](Job::keep) outlives its service: it is there again, at the same path, when the service is,
//! and the work is given to the service once more ([`Jobs::resume`]).

mod face;
mod follow;
mod kept;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::job::{Progress, State};
use banger_schemas::options::Dict;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use zbus::fdo::DBusProxy;
use zbus::wire::{ObjectPath, OwnedObjectPath};

use crate::authorize::Authorizer;
use crate::caller::Callers;
use crate::metrics;
use crate::objects::{self, Tree};
use crate::trace::Place;
pub use follow::follow;
use kept::{End, Folder, Kept};

/// How long a job that has ended can be asked for its result.
const RETENTION: Duration = Duration::from_secs(600);
/// Ended jobs of one owner that are kept at once: who makes many loses their own, and nobody else's.
const KEPT: usize = 64;

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
    kind: Cow<'static, str>,
    owner: u32,
    path: OwnedObjectPath,
    snapshot: watch::Sender<Snapshot>,
    cancel: Notify,
    /// Too many have ended since.
    surplus: Notify,
    /// What is kept of it, and where, until it ends.
    kept: Mutex<Option<(Folder, Kept)>>,
}

impl Shared {
    fn new(kind: Cow<'static, str>, owner: u32, path: OwnedObjectPath, snapshot: Snapshot) -> Self {
        let snapshot = watch::Sender::new(snapshot);
        Shared { kind, owner, path, snapshot, cancel: Notify::new(), surplus: Notify::new(), kept: Mutex::default() }
    }

    fn keep(&self, folder: Folder, kept: Kept) {
        if let Ok(mut place) = self.kept.lock() {
            *place = Some((folder, kept));
        }
    }

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
            // Before anybody hears of it.
            if let Some((folder, kept)) = self.kept.lock().ok().and_then(|mut kept| kept.take()) {
                let end = End::new(s.state, s.result.clone(), s.error.as_ref());
                folder.put(&Kept { end: Some(end), ..kept });
            }
            metrics::job_ended(&self.kind, s.state.as_str());
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
    /// By their owners, the oldest first.
    ended: Arc<Mutex<BTreeMap<u32, VecDeque<Arc<Shared>>>>>,
    folder: Arc<OnceLock<Folder>>,
}

/// A job that has just begun.
fn fresh() -> Snapshot {
    Snapshot { state: State::Running, progress: Progress::default(), result: Dict::new(), error: None }
}

impl Jobs {
    pub(crate) fn new(tree: Tree, root: &'static str, callers: Callers, authorizer: Arc<dyn Authorizer>) -> Self {
        // Paths of two lives of a service never meet: they begin at the clock.
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let next = Arc::new(AtomicU64::new(u64::try_from(start).unwrap_or(0)));
        Jobs { tree, root, callers, authorizer, next, ended: Arc::default(), folder: Arc::default() }
    }

    /// Puts a new job on the bus.
    pub async fn create(&self, kind: &'static str, owner: u32) -> Result<Job> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = ObjectPath::try_from(format!("{}/job/{number}", self.root)).map_err(Error::internal)?;
        let shared = Shared::new(Cow::Borrowed(kind), owner, path.into(), fresh());
        self.publish(shared).await
    }

    /// Puts the jobs of an earlier life of the service on the bus again, and gives back those that had not ended, with
    /// their work. From now on jobs are kept in this folder.
    pub async fn resume<W: DeserializeOwned>(&self, folder: &Path, bus: &DBusProxy<'_>) -> Result<Vec<(W, Job)>> {
        let bus = bus.get_id().await.map_err(|e| Error::internal(format!("the bus has no id: {e}")))?;
        let folder = Folder::open(folder, bus.to_string())?;
        let mut interrupted = Vec::new();
        for kept in folder.all() {
            let path = ObjectPath::try_from(kept.path.clone()).map_err(Error::internal)?;
            let ended = kept.end.clone().and_then(End::into_parts);
            let snapshot = match ended {
                Some((state, result, error)) => Snapshot { state, result, error, ..fresh() },
                None => fresh(),
            };
            let runs = snapshot.state == State::Running;
            let shared = Shared::new(Cow::Owned(kept.kind.clone()), kept.owner, path.into(), snapshot);
            let work = serde_json::from_value(kept.work.clone());
            shared.keep(folder.clone(), kept);
            let job = self.publish(shared).await?;
            match work {
                Ok(work) if runs => interrupted.push((work, job)),
                // One that has ended stays as it is.
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the work of a job is not understood"),
            }
        }
        drop(self.folder.set(folder));
        Ok(interrupted)
    }

    /// The service stops: what it has not done it does in its next life.
    pub(crate) fn leave(&self) {
        self.folder.get().into_iter().for_each(Folder::leave);
    }

    async fn publish(&self, shared: Shared) -> Result<Job> {
        let shared = Arc::new(shared);
        let face = face::JobFace::new(shared.clone(), self.callers.clone(), self.authorizer.clone());
        self.tree.publish(&shared.path, Some(shared.owner), face).await?;
        let (changes, path) = (shared.snapshot.subscribe(), shared.path.to_string());
        tokio::spawn(objects::publish(self.tree.connection().clone(), path, changes, |s| s.state == State::Running));
        tokio::spawn(self.clone().retire_when_old(shared.clone()));
        let span = tracing::info_span!("job", what = format!("{} job", shared.kind), error = tracing::field::Empty);
        Ok(Job { shared, folder: self.folder.clone(), span })
    }

    async fn retire_when_old(self, shared: Arc<Shared>) {
        let mut changes = shared.snapshot.subscribe();
        drop(changes.wait_for(|s| s.state != State::Running).await);
        if let Ok(mut ended) = self.ended.lock() {
            let own = ended.entry(shared.owner).or_default();
            own.push_back(shared.clone());
            if own.len() > KEPT {
                own.pop_front().inspect(|oldest| oldest.surplus.notify_one());
            }
        }
        // Who sleeps on holds all that is known of the job.
        drop(timeout(RETENTION, shared.surplus.notified()).await);
        if let Ok(mut ended) = self.ended.lock()
            && let Entry::Occupied(mut own) = ended.entry(shared.owner)
        {
            own.get_mut().retain(|job| job.path != shared.path);
            if own.get().is_empty() {
                own.remove();
            }
        }
        if let Some(folder) = self.folder.get() {
            folder.remove(shared.path.as_str());
        }
        // Gone already is as good.
        drop(self.tree.retire::<face::JobFace>(&shared.path).await);
    }
}

/// The one who does the work holds this.
#[derive(Debug)]
pub struct Job {
    shared: Arc<Shared>,
    folder: Arc<OnceLock<Folder>>,
    /// From the call that made the job to its end.
    span: tracing::Span,
}

impl Job {
    pub fn path(&self) -> OwnedObjectPath {
        self.shared.path.clone()
    }

    /// `create`, `start`, ….
    pub fn kind(&self) -> &str {
        &self.shared.kind
    }

    /// Has the job outlive its service: this is what the service is to do, should it have to begin once more.
    pub fn keep(&self, work: &impl Serialize) {
        let Some(folder) = self.folder.get() else { return };
        let Ok(work) = serde_json::to_value(work) else { return };
        let Shared { kind, owner, path, .. } = &*self.shared;
        let (bus, path, kind) = (folder.bus().to_owned(), path.to_string(), kind.to_string());
        let kept = Kept { bus, path, kind, owner: *owner, work, end: None };
        folder.put(&kept);
        self.shared.keep(folder.clone(), kept);
    }

    /// What the job does now.
    pub fn stage(&self, stage: impl Into<String>) {
        self.progress(Progress { stage: stage.into(), ..Progress::default() });
    }

    pub fn progress(&self, progress: Progress) {
        self.shared.set_progress(progress);
    }

    /// Whether somebody asks the job to stop: told when that happens, or when the job ends without.
    pub fn canceled(&self) -> impl Future<Output = bool> + use<> {
        let shared = self.shared.clone();
        async move {
            let mut changes = shared.snapshot.subscribe();
            tokio::select! {
                () = shared.cancel.notified() => true,
                _ = changes.wait_for(|s| s.state != State::Running) => false,
            }
        }
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
