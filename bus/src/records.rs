//! Records: what a service must find again after `kill -9`. One redb file a service; a record is JSON with its
//! version in front, written before the effect it describes.

use std::path::Path;
use std::sync::Arc;

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
    database: Arc<Database>,
}

#[derive(Serialize, serde::Deserialize)]
struct Envelope {
    v: u32,
    record: serde_json::Value,
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("the records cannot be used: {error}"))
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
        let database = Database::create(path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                Error::new(Kind::InUse, format!("{} is in use by another banger", path.display()))
            }
            e => Error::new(
                Kind::Corrupt,
                format!("{} cannot be read ({e}): move it away to start afresh; what it described must then be removed by hand", path.display()),
            ),
        })?;
        Ok(Records { database: Arc::new(database) })
    }

    /// Writes a record; on return it is on the disk.
    pub async fn put<R: Record>(&self, key: impl Into<String>, record: &R) -> Result<()> {
        let (key, bytes, database) = (key.into(), encode(record)?, self.database.clone());
        blocking(move || {
            let write = database.begin_write().map_err(broken)?;
            {
                let mut table = write.open_table(definition(R::TABLE)).map_err(broken)?;
                table.insert(key.as_str(), bytes.as_slice()).map_err(broken)?;
            }
            write.commit().map_err(broken)
        })
        .await
    }

    /// Removes a record; no record is fine too.
    pub async fn delete<R: Record>(&self, key: impl Into<String>) -> Result<()> {
        let (key, database) = (key.into(), self.database.clone());
        blocking(move || {
            let write = database.begin_write().map_err(broken)?;
            {
                let mut table = write.open_table(definition(R::TABLE)).map_err(broken)?;
                table.remove(key.as_str()).map_err(broken)?;
            }
            write.commit().map_err(broken)
        })
        .await
    }

    /// All records of a kind; those that cannot be read are returned beside the others, never dropped.
    pub async fn all<R: Record>(&self) -> Result<Vec<(String, Result<R>)>> {
        let database = self.database.clone();
        blocking(move || {
            let read = database.begin_read().map_err(broken)?;
            let table = match read.open_table(definition(R::TABLE)) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(broken(error)),
            };
            let mut records = Vec::new();
            for entry in table.iter().map_err(broken)? {
                let (key, bytes) = entry.map_err(broken)?;
                records.push((key.value().to_owned(), decode(key.value(), bytes.value())));
            }
            Ok(records)
        })
        .await
    }
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
