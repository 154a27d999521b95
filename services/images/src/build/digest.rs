//! SHA-256 digests: the names under which finished things are kept.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::{At, BuildError, Result};
use super::progress::{Cancel, Progress, Unit};

/// A SHA-256 digest. Its text is always 64 lower-case hex digits, so it is safe as a file name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Text that is no digest.
#[derive(Debug, thiserror::Error)]
#[error("a digest is 64 lower-case hex digits")]
pub struct NoDigest;

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Reads the whole file.
    pub fn of_file(path: &Path, progress: &dyn Progress, cancel: &Cancel) -> Result<Self> {
        let mut file = File::open(path).at(path)?;
        let total = file.metadata().at(path)?.len();
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            cancel.check()?;
            let read = file.read(&mut buffer).at(path)?;
            if read == 0 {
                return Ok(Digest(hasher.finalize().into()));
            }
            hasher.update(&buffer[..read]);
            done += read as u64;
            progress.amount(done, Some(total), Unit::Bytes);
        }
    }
}

/// A file as it was when it was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    pub digest: Digest,
    pub size: u64,
}

impl FileRecord {
    /// Reads the whole file.
    pub fn of(path: &Path, progress: &dyn Progress, cancel: &Cancel) -> Result<Self> {
        let size = path.metadata().at(path)?.len();
        Ok(FileRecord { digest: Digest::of_file(path, progress, cancel)?, size })
    }

    /// Fails unless the file at `path` is as long as it was.
    pub fn check_size(&self, path: &Path) -> Result<()> {
        let size = path.metadata().at(path)?.len();
        if size == self.size {
            return Ok(());
        }
        Err(BuildError::corrupt(path.display().to_string(), format!("it has {size} bytes instead of {}", self.size)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NoDigest)?;
        let digest = Digest(bytes);
        // One text a digest, or the same thing could be kept under two names.
        if digest.to_string() == text { Ok(digest) } else { Err(NoDigest) }
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Silent;

    #[test]
    fn a_file_and_its_bytes_have_the_same_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"abc").unwrap();
        let digest = Digest::of_file(&path, &Silent, &Cancel::default()).unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn only_the_one_text_of_a_digest_is_taken() {
        let text = Digest::of(b"").to_string();
        for wrong in [text.to_uppercase(), format!("{text}0"), text[1..].to_owned(), "../../etc".to_owned()] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cancelled_digest_stops() {
        let cancel = Cancel::default();
        cancel.cancel();
        let here = Path::new("/proc/self/exe");
        assert!(matches!(Digest::of_file(here, &Silent, &cancel), Err(BuildError::Cancelled)));
    }

    #[test]
    fn a_file_of_another_length_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "whole").unwrap();
        let record = FileRecord::of(&path, &Silent, &Cancel::default()).unwrap();
        record.check_size(&path).unwrap();
        std::fs::write(&path, "who").unwrap();
        assert!(matches!(record.check_size(&path), Err(BuildError::Corrupt { .. })));
    }
}
