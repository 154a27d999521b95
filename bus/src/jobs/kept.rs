//! What is kept of a job beyond its service's life: a file a job in the service's runtime folder. Clients outlive
//! services and not the bus, so the files are of the bus that they were written under, and need not outlive the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use banger_schemas::error::Error;
use banger_schemas::job::State;
use banger_schemas::options::Dict;
use serde::{Deserialize, Serialize};

use crate::dirs::private_folder;

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Id of the bus.
    pub(super) bus: String,
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) owner: u32,
    /// What was to be done, in the service's own words.
    pub(super) work: serde_json::Value,
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct End {
    state: String,
    result: Dict,
    /// Name and sentence.
    error: Option<(String, String)>,
}

impl End {
    pub(super) fn new(state: State, result: Dict, error: Option<&Error>) -> Self {
        let error = error.map(|error| (error.name().to_owned(), error.message.clone()));
        End { state: state.to_string(), result, error }
    }

    pub(super) fn into_parts(self) -> Option<(State, Dict, Option<Error>)> {
        let error = self.error.map(|(name, message)| Error::from_parts(&name, message));
        Some((self.state.parse().ok()?, self.result, error))
    }
}

/// The folder of all jobs of one service.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    folder: PathBuf,
    bus: String,
    /// What ends from now on has not: its service has.
    left: Arc<AtomicBool>,
}

impl Folder {
    pub(super) fn open(folder: &Path, bus: String) -> banger_schemas::error::Result<Self> {
        private_folder(folder)?;
        Ok(Folder { folder: folder.to_owned(), bus, left: Arc::default() })
    }

    /// Leaves all as it is.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    pub(super) fn bus(&self) -> &str {
        &self.bus
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path.rsplit('/').next().unwrap_or(path))
    }

    /// Whole or not at all; where it cannot be written, the job does not outlive its service.
    pub(super) fn put(&self, kept: &Kept) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        let file = self.file(&kept.path);
        let half = file.with_extension("half");
        let written = serde_json::to_vec(kept)
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write(&half, bytes))
            .and_then(|()| fs::rename(&half, &file));
        if let Err(error) = written {
            tracing::warn!(%error, job = kept.path, "this job is not kept");
        }
    }

    pub(super) fn remove(&self, path: &str) {
        // One that was never kept is as good.
        drop(fs::remove_file(self.file(path)));
    }

    /// What is kept of jobs of this bus, the oldest first; everything else in the folder is removed.
    pub(super) fn all(&self) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut all = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let kept = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
            match kept.filter(|kept| kept.bus == self.bus && self.file(&kept.path) == path) {
                Some(kept) => all.push(kept),
                None => drop(fs::remove_file(path)),
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_schemas::error::Kind;
    use banger_schemas::options::DictBuilder;

    fn kept(path: &str, bus: &str) -> Kept {
        let result = DictBuilder::default().set("id", "abc").set("notes", vec!["a".to_owned(), "b".to_owned()]).build();
        let end = End::new(State::Failed, result, Some(&Error::new(Kind::Guest, "no")));
        let work = serde_json::json!({"start": "abc"});
        Kept { bus: bus.into(), path: path.into(), kind: "start".into(), owner: 7, work, end: Some(end) }
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_and_what_is_another_bus_s_or_broken_goes() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("jobs"), "bus".into()).unwrap();
        let (second, first) = (kept("/x/job/2", "bus"), kept("/x/job/1", "bus"));
        folder.put(&second);
        folder.put(&first);
        folder.put(&kept("/x/job/3", "another"));
        fs::write(folder.file("/x/job/4"), "{").unwrap();
        fs::write(folder.file("/x/job/5"), fs::read(folder.file("/x/job/1")).unwrap()).unwrap();
        assert_eq!(folder.all(), [first.clone(), second]);
        let (state, result, error) = first.end.unwrap().into_parts().unwrap();
        assert_eq!((state, error.unwrap().kind), (State::Failed, Kind::Guest));
        assert_eq!(
            banger_schemas::options::Options::new(result).unwrap().take::<Vec<String>>("notes").unwrap().unwrap(),
            ["a", "b"]
        );
        folder.leave();
        folder.put(&kept("/x/job/1", "another"));
        folder.remove("/x/job/2");
        folder.remove("/x/job/2");
        assert_eq!(folder.all().len(), 1, "what ends with its service has not ended");
    }
}
