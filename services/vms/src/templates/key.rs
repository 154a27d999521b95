//! What a frozen guest depends on. Machines of one key can go on from one guest; what only the host can tell (its
//! counter's rate, its processor) is compared by the keeper ([`Origin`](banger_schemas::keeper::Origin)).

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_schemas::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A program as it is installed: another version has another time or another size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    path: String,
    modified_ns: i128,
    size: u64,
}

impl Program {
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let failed = |error| Error::internal(format!("{}: {error}", path.display()));
        let meta = std::fs::metadata(path).map_err(failed)?;
        let modified_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Program { path: path.to_string_lossy().into_owned(), modified_ns, size: meta.len() })
    }
}

/// Everything that two guests must have in common to be one until they are told who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The catalog's word for image, kernel and agent.
    pub(crate) contents: String,
    pub(crate) backend: String,
    pub(crate) vmm: Program,
    /// It makes the VMM's command line.
    pub(crate) keeper: Program,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    /// Whether there is a network device.
    pub(crate) network: bool,
}

impl Key {
    /// A name for it, fit for a file.
    pub(crate) fn name(&self) -> String {
        // Structs of plain values always become JSON.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(&Sha256::digest(bytes)[..16])
    }
}

#[cfg(test)]
pub(super) fn some() -> Key {
    let program = |path: &str| Program { path: path.into(), modified_ns: 1, size: 2 };
    Key {
        contents: "i-k-a".into(),
        backend: "qemu-tcg".into(),
        vmm: program("/q"),
        keeper: program("/k"),
        vcpus: 2,
        memory_mib: 64,
        disk_mib: 64,
        network: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_makes_another_key() {
        let key = some();
        let program = |size| Program { size, ..key.vmm.clone() };
        let others = [
            Key { contents: "i-k-b".into(), ..key.clone() },
            Key { backend: "qemu-kvm".into(), ..key.clone() },
            Key { vmm: program(3), ..key.clone() },
            Key { keeper: program(3), ..key.clone() },
            Key { vcpus: 1, ..key.clone() },
            Key { memory_mib: 65, ..key.clone() },
            Key { disk_mib: 65, ..key.clone() },
            Key { network: false, ..key.clone() },
        ];
        let mut names: Vec<String> = others.iter().chain([&key]).map(Key::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), others.len() + 1);
        assert_eq!(key.name(), key.clone().name());
    }
}
