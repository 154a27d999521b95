//! Templates: guests frozen at the moment when all that is left is to tell them who they are. A machine whose key has
//! one goes on from it in place of a boot; the first machine of a key boots, and has one made.
//!
//! A template is read and checked whole when this service first uses it, and is sealed memory from then on; its pristine
//! disks stay files, and one that was written since is not used. So a start reads none of the memory, and what is not
//! seen is only memory that goes bad after it was read.

mod key;
mod make;
mod memory;
mod store;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use banger_bus::effects::blocking;
use banger_bus::settings;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Memory;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

pub(crate) use key::{Key, Program};
pub(crate) use make::want;
pub(crate) use store::Row;
use store::{Frozen, Parts, Store};

/// Templates whose memory this service holds, each of the size of what its guest used; and for how long after their
/// last use.
const HELD: usize = 2;
const HOLD: Duration = Duration::from_secs(600);
/// Templates on the disk, and what they may take there.
const MOST: usize = 16;
const MOST_BYTES: u64 = 4 << 30;
/// Between two tries to make one where the first has failed.
const REST: Duration = Duration::from_secs(1800);

/// All templates of this service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Templates {
    store: Arc<Store>,
    /// The least recently used first. Held while one is read, so that nobody reads it twice.
    held: Arc<Mutex<Vec<Arc<Frozen>>>>,
    /// What lets them go when nobody has used one for a while.
    letting_go: Arc<StdMutex<Option<AbortHandle>>>,
    /// Keys that are being worked on, and the machines that do it.
    making: Arc<StdMutex<HashMap<String, VmId>>>,
    /// Keys whose making has failed, and when.
    failed: Arc<StdMutex<HashMap<String, Instant>>>,
    off: bool,
}

/// A guest to go on from.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    /// Its memory, its devices' state.
    pub(crate) fds: [OwnedFd; 2],
    /// What it has said at its console so far.
    pub(crate) console: String,
}

impl Templates {
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        let off = settings::get().templates == Some(false);
        let store = Arc::new(Store::open(folder)?);
        Ok(Templates {
            store,
            held: Arc::default(),
            letting_go: Arc::default(),
            making: Arc::default(),
            failed: Arc::default(),
            off,
        })
    }

    pub(crate) fn off(&self) -> bool {
        self.off
    }

    fn folder(&self) -> &Path {
        self.store.folder()
    }

    fn exists(&self, key: &Key) -> bool {
        self.store.exists(&key.name())
    }

    /// The template of a key; an error where there is none: a sentence.
    async fn find(&self, key: &Key) -> Result<Arc<Frozen>> {
        let name = key.name();
        let mut held = self.held.lock().await;
        let frozen = match held.iter().position(|frozen| frozen.name == name) {
            Some(at) => held.remove(at),
            None => {
                let (store, wanted) = (self.store.clone(), key.clone());
                let loaded = blocking(move || store.load(&wanted)).await;
                match loaded {
                    Ok(Some(frozen)) => Arc::new(frozen),
                    Ok(None) => return Err(Error::new(Kind::NotFound, "there is no template of its kind yet")),
                    Err(error) => {
                        self.remove(&name, &error.message);
                        return Err(error);
                    }
                }
            }
        };
        self.hold(&mut held, frozen.clone());
        Ok(frozen)
    }

    fn hold(&self, held: &mut Vec<Arc<Frozen>>, frozen: Arc<Frozen>) {
        held.push(frozen);
        let more = held.len().saturating_sub(HELD);
        held.drain(..more);
        let all = self.held.clone();
        let letting_go = tokio::spawn(async move {
            tokio::time::sleep(HOLD).await;
            all.lock().await.clear();
        });
        let before = self.letting_go.lock().ok().and_then(|mut task| task.replace(letting_go.abort_handle()));
        before.iter().for_each(AbortHandle::abort);
    }

    fn remove(&self, name: &str, why: &str) {
        tracing::warn!(name, why, "a template is removed");
        if let Err(error) = self.store.remove(name) {
            tracing::error!(%error, "it stays");
        }
    }

    /// The pristine disks of a key's template, to be copied.
    pub(crate) async fn disks(&self, key: &Key) -> Result<[OwnedFd; 2]> {
        let frozen = self.find(key).await?;
        match frozen.disks() {
            Ok(disks) => {
                self.store.used(&frozen.name);
                Ok(disks)
            }
            Err(error) => {
                self.condemn(key, &error.message).await;
                Err(error)
            }
        }
    }

    /// The guest of a key's template.
    pub(crate) async fn guest(&self, key: &Key) -> Result<Guest> {
        let frozen = self.find(key).await?;
        let memory = Memory::Frozen(frozen.origin.clone());
        Ok(Guest { memory, fds: frozen.guest()?, console: frozen.console.clone() })
    }

    /// Removes a template that is of no use.
    pub(crate) async fn condemn(&self, key: &Key, why: &str) {
        let name = key.name();
        self.held.lock().await.retain(|frozen| frozen.name != name);
        self.remove(&name, why);
    }

    /// Keeps a guest that was frozen, and lets the least recently used go where there are too many.
    async fn keep(&self, key: Key, parts: Parts) -> Result<()> {
        // Nobody reads, lists or prunes what is half there.
        let mut held = self.held.lock().await;
        let store = self.store.clone();
        let frozen = blocking(move || {
            let frozen = store.publish(&key, parts)?;
            for name in too_many(&store.list()?) {
                tracing::info!(name, "the least recently used template goes");
                store.remove(&name)?;
            }
            Ok(frozen)
        });
        let frozen = Arc::new(frozen.await?);
        held.retain(|other| other.name != frozen.name);
        self.hold(&mut held, frozen);
        Ok(())
    }

    /// All of them, the least recently used first.
    pub(crate) async fn list(&self) -> Result<Vec<Row>> {
        let _turn = self.held.lock().await;
        let store = self.store.clone();
        blocking(move || store.list()).await
    }

    /// Removes all of them; how many there were.
    pub(crate) async fn prune(&self) -> Result<u32> {
        let mut held = self.held.lock().await;
        held.clear();
        let store = self.store.clone();
        blocking(move || {
            let rows = store.list()?;
            rows.iter().try_for_each(|row| store.remove(&row.name))?;
            Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
        })
        .await
    }

    /// The right of a machine to make a key's template; nobody else has it meanwhile.
    fn begin(&self, key: &Key, maker: &VmId) -> Option<Making> {
        let name = key.name();
        if self.failed.lock().ok()?.get(&name).is_some_and(|when| when.elapsed() < REST) {
            return None;
        }
        match self.making.lock().ok()?.entry(name.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(maker.clone()),
        };
        Some(Making { name, making: self.making.clone() })
    }

    /// The making of this key came to nothing: it is let alone for a while.
    fn has_failed(&self, key: &Key) {
        if let Ok(mut failed) = self.failed.lock() {
            failed.retain(|_, when| when.elapsed() < REST);
            failed.insert(key.name(), Instant::now());
        }
    }

    /// Machines that make templates, and have no record.
    pub(crate) fn makers(&self) -> Vec<VmId> {
        self.making.lock().map(|making| making.values().cloned().collect()).unwrap_or_default()
    }
}

/// A key that is being worked on, as long as this lives.
struct Making {
    name: String,
    making: Arc<StdMutex<HashMap<String, VmId>>>,
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Ok(mut making) = self.making.lock() {
            making.remove(&self.name);
        }
    }
}

/// Of templates, the least recently used first, those that are too many.
fn too_many(rows: &[Row]) -> Vec<String> {
    let (mut count, mut bytes) = (rows.len(), rows.iter().map(|row| row.bytes).sum::<u64>());
    let mut gone = Vec::new();
    for row in rows {
        if count <= MOST && bytes <= MOST_BYTES {
            break;
        }
        count -= 1;
        bytes -= row.bytes;
        gone.push(row.name.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, bytes: u64) -> Row {
        Row { name: name.into(), key: key::some(), image: "i".into(), kernel: "k".into(), bytes, made: 0, used: 0 }
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let few: Vec<Row> = (0..MOST).map(|n| row(&n.to_string(), 1)).collect();
        assert!(too_many(&few).is_empty());
        let many: Vec<Row> = (0..MOST + 2).map(|n| row(&n.to_string(), 1)).collect();
        assert_eq!(too_many(&many), ["0", "1"]);
        let large = [row("a", MOST_BYTES / 2), row("b", MOST_BYTES / 2), row("c", 1)];
        assert_eq!(too_many(&large), ["a"]);
    }

    #[test]
    fn one_key_is_made_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let templates = Templates::open(folder.path().join("t")).unwrap();
        let key = key::some();
        let maker: VmId = "abcdefghij".parse().unwrap();
        let first = templates.begin(&key, &maker);
        assert!(first.is_some() && templates.begin(&key, &maker).is_none());
        assert_eq!(templates.makers(), std::slice::from_ref(&maker));
        assert!(templates.begin(&Key { vcpus: 9, ..key.clone() }, &maker).is_some());
        drop(first);
        assert!(templates.makers().is_empty());
        templates.has_failed(&Key { vcpus: 7, ..key.clone() });
        assert!(templates.begin(&Key { vcpus: 7, ..key.clone() }, &maker).is_none(), "not at once again");
        assert!(templates.begin(&key, &maker).is_some());
    }
}
