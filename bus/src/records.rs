//! Records: what a service must find again after `kill -9`. One redb file a service; a record is JSON with its
//! version in front, written before the effect it describes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use banger_schemas::error::{Error, Kind, Result};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::effects::blocking;

/// A kind of record: its table, and the version of its newest shape.
pub trait Record: Serialize + DeserializeOwned + Send + 'static {
    const TABLE: &'static str;
    const VERSION: u32;

    /// Reads an older shape. `None`: this version was never released.
    fn migrate(_version: u32, _value: serde_json::Value) -> Option<Self> {
        None
    }
}

/// A service's store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    store: Arc<Store>,
}

/// The file, open but for when the disk has failed.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    database: Mutex<Option<Database>>,
}

impl Store {
    /// Does it, and does it again where an earlier failure of the disk, such as a full one, is all that speaks
    /// against it: redb refuses everything from then on until the file is opened anew.
    fn with<T>(&self, work: impl Fn(&Database) -> std::result::Result<T, redb::Error>) -> Result<T> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*slot {
            match work(database) {
                Err(redb::Error::PreviousIo) => {}
                outcome => return outcome.map_err(|e| self.broken(&e)),
            }
        }
        // A file is open once: the old one goes first.
        drop(slot.take());
        work(slot.insert(open(&self.path)?)).map_err(|e| self.broken(&e))
    }

    fn broken(&self, error: &redb::Error) -> Error {
        match error {
            redb::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                Error::new(Kind::NoSpace, format!("the disk of {} is full: make room there first", self.path.display()))
            }
            error => Error::new(Kind::Corrupt, format!("the records cannot be used: {error}")),
        }
    }
}

#[derive(Serialize, serde::Deserialize)]
struct Envelope {
    v: u32,
    record: serde_json::Value,
}

/// The bytes of a record as they are stored. Public for the golden tests of those who have records.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>> {
    let record = serde_json::to_value(record).map_err(Error::internal)?;
    serde_json::to_vec(&Envelope { v: R::VERSION, record }).map_err(Error::internal)
}

/// Reads a record of this version or an older one; `key` is for the error.
pub fn decode<R: Record>(key: &str, bytes: &[u8]) -> Result<R> {
    let corrupt = |why: String| Error::new(Kind::Corrupt, format!("record {}/{key}: {why}", R::TABLE));
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    if envelope.v > R::VERSION {
        let newest = R::VERSION;
        return Err(Error::new(
            Kind::NotSupported,
            format!(
                "record {}/{key} is of version {}, newer than this banger knows ({newest}): update it",
                R::TABLE,
                envelope.v
            ),
        ));
    }
    if envelope.v == R::VERSION {
        return serde_json::from_value(envelope.record).map_err(|e| corrupt(e.to_string()));
    }
    R::migrate(envelope.v, envelope.record).ok_or_else(|| corrupt(format!("version {} was never released", envelope.v)))
}

impl Records {
    /// Opens or makes the store. A damaged file is an error that names it; it is never replaced in silence.
    pub fn open(path: &Path) -> Result<Self> {
        let database = Mutex::new(Some(open(path)?));
        Ok(Records { store: Arc::new(Store { path: path.to_owned(), database }) })
    }

    /// Writes a record; on return it is on the disk.
    pub async fn put<R: Record>(&self, key: impl Into<String>, record: &R) -> Result<()> {
        let (key, bytes, store) = (key.into(), encode(record)?, self.store.clone());
        let put = move |database: &Database| {
            let write = database.begin_write()?;
            write.open_table(definition(R::TABLE))?.insert(key.as_str(), bytes.as_slice())?;
            Ok(write.commit()?)
        };
        blocking(move || store.with(put)).await
    }

    /// Removes a record; no record is fine too.
    pub async fn delete<R: Record>(&self, key: impl Into<String>) -> Result<()> {
        let (key, store) = (key.into(), self.store.clone());
        let delete = move |database: &Database| {
            let write = database.begin_write()?;
            write.open_table(definition(R::TABLE))?.remove(key.as_str())?;
            Ok(write.commit()?)
        };
        blocking(move || store.with(delete)).await
    }

    /// All records of a kind; those that cannot be read are returned beside the others, never dropped.
    pub async fn all<R: Record>(&self) -> Result<Vec<(String, Result<R>)>> {
        let store = self.store.clone();
        let all = |database: &Database| {
            let table = match database.begin_read()?.open_table(definition(R::TABLE)) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut records = Vec::new();
            for entry in table.iter()? {
                let (key, bytes) = entry?;
                records.push((key.value().to_owned(), decode(key.value(), bytes.value())));
            }
            Ok(records)
        };
        blocking(move || store.with(all)).await
    }
}

fn open(path: &Path) -> Result<Database> {
    Database::create(path).map_err(|e| match e {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            Error::new(Kind::InUse, format!("{} is in use by another banger", path.display()))
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() == std::io::ErrorKind::StorageFull => {
            Error::new(Kind::NoSpace, format!("the disk of {} is full: make room there first", path.display()))
        }
        e => Error::new(
            Kind::Corrupt,
            format!(
                "{} cannot be read ({e}): move it away to start afresh; what it described must then be removed by hand",
                path.display()
            ),
        ),
    })
}

fn definition(name: &'static str) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Thing {
        name: String,
    }
    impl Record for Thing {
        const TABLE: &'static str = "things";
        const VERSION: u32 = 2;
        fn migrate(version: u32, value: serde_json::Value) -> Option<Self> {
            (version == 1).then(|| Thing { name: value.as_str().unwrap_or_default().to_owned() })
        }
    }

    #[tokio::test]
    async fn records_survive_and_damage_is_said() {
        let dir = std::env::temp_dir().join(format!("banger-records-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("r.redb");
        let records = Records::open(&path).unwrap();
        assert!(records.all::<Thing>().await.unwrap().is_empty());
        records.put("a", &Thing { name: "x".into() }).await.unwrap();
        records.put("b", &Thing { name: "y".into() }).await.unwrap();
        records.delete::<Thing>("b").await.unwrap();
        assert_eq!(Records::open(&path).unwrap_err().kind, Kind::InUse);
        drop(records);
        let records = Records::open(&path).unwrap();
        assert_eq!(records.all::<Thing>().await.unwrap(), [("a".to_owned(), Ok(Thing { name: "x".into() }))]);
        drop(records);
        std::fs::write(&path, b"not a database at all").unwrap();
        let error = Records::open(&path).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.message.contains("r.redb"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn old_shapes_are_read_and_newer_ones_refused_by_version() {
        assert_eq!(decode::<Thing>("k", br#"{"v":2,"record":{"name":"n"}}"#).unwrap().name, "n");
        assert_eq!(decode::<Thing>("k", br#"{"v":1,"record":"old"}"#).unwrap().name, "old");
        assert_eq!(decode::<Thing>("k", br#"{"v":3,"record":{}}"#).unwrap_err().kind, Kind::NotSupported);
        assert_eq!(decode::<Thing>("k", br#"{"v":2,"rec"#).unwrap_err().kind, Kind::Corrupt);
    }
}
