//! Which VMM, and how: Firecracker where one is configured and KVM is proved usable with it, QEMU under KVM next, QEMU's
//! emulation when KVM is not to be had.

mod cache;
mod find;
mod firecracker;
mod probe;

use std::path::{Path, PathBuf};

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Backend;

const QEMU: &str = "qemu-system-x86_64";

/// How VMs run here, and why so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Absent: VMs cannot run here, and `reason` says what to do.
    pub(crate) backend: Option<(Backend, PathBuf)>,
    pub(crate) reason: String,
}

impl Choice {
    /// The backend and the VMM's binary, or why there is none.
    pub(crate) fn get(&self) -> Result<(Backend, PathBuf)> {
        self.backend.clone().ok_or_else(|| Error::new(Kind::Unavailable, self.reason.clone()))
    }
}

/// What was found out of a host.
#[derive(Debug)]
struct Found {
    /// A Firecracker that runs here: its path and what to say of it. Or why there is none.
    firecracker: std::result::Result<(PathBuf, String), Missing>,
    qemu: Option<PathBuf>,
    /// Whether QEMU runs under KVM here; not asked where Firecracker does.
    kvm: std::result::Result<(), String>,
}

/// Why Firecracker is not used.
#[derive(Debug)]
enum Missing {
    NotAskedFor,
    Unusable(String),
}

fn decide(found: Found) -> Choice {
    let aside = match found.firecracker {
        Ok((path, what)) => return Choice { backend: Some((Backend::Firecracker, path)), reason: what },
        Err(Missing::NotAskedFor) => String::new(),
        Err(Missing::Unusable(why)) => format!("; Firecracker is not used: {why}"),
    };
    let Some(qemu) = found.qemu else {
        let reason = format!("{QEMU} is not installed: install the package qemu-system-x86{aside}");
        return Choice { backend: None, reason };
    };
    let (backend, reason) = match found.kvm {
        Ok(()) => (Backend::QemuKvm, "KVM ran a guest's instructions".to_owned()),
        Err(why) => (Backend::QemuTcg, format!("KVM is not used: {why}")),
    };
    Choice { backend: Some((backend, qemu)), reason: reason + &aside }
}

/// Looks at the host. Blocks, for seconds where KVM opens and does not work.
fn look(cache: &Path) -> Found {
    let qemu = find::program(QEMU);
    let opened = probe::open_kvm();
    let firecracker = match (find::firecracker(), &opened) {
        (None, _) => Err(Missing::NotAskedFor),
        // Said once, for KVM itself.
        (Some(_), Err(_)) => Err(Missing::NotAskedFor),
        (Some(path), Ok(())) => usable(path, cache).map_err(Missing::Unusable),
    };
    let kvm = match (&firecracker, opened, &qemu) {
        (Err(_), Ok(()), Some(qemu)) => cache::verdict(qemu, cache, probe::qemu),
        (_, opened, _) => opened,
    };
    Found { firecracker, qemu, kvm }
}

fn usable(path: PathBuf, cache: &Path) -> std::result::Result<(PathBuf, String), String> {
    let version = firecracker::version(&path)?;
    version.check()?;
    cache::verdict(&path, cache, probe::firecracker)?;
    let (oldest, newest) = (firecracker::KNOWN.start(), firecracker::KNOWN.end());
    Ok((
        path,
        format!("Firecracker {version} ran a guest's instructions under KVM; known to work: {oldest} to {newest}"),
    ))
}

/// The choice, made once: in the life of a service by a cell, and between lives by a file that goes with the login,
/// because a probe that fails takes seconds.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    choice: std::sync::Arc<tokio::sync::OnceCell<Choice>>,
    cache: PathBuf,
}

impl Backends {
    pub(crate) fn new(cache: PathBuf) -> Self {
        Backends { choice: std::sync::Arc::default(), cache }
    }

    pub(crate) async fn choice(&self) -> Choice {
        let cache = self.cache.clone();
        self.choice
            .get_or_init(|| async {
                banger_bus::effects::blocking(move || Ok(decide(look(&cache))))
                    .await
                    .unwrap_or_else(|e| Choice { backend: None, reason: e.message })
            })
            .await
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(firecracker: std::result::Result<(), &str>, qemu: bool, kvm: std::result::Result<(), &str>) -> Choice {
        decide(Found {
            firecracker: match firecracker {
                Ok(()) => Ok(("/firecracker".into(), "it works".into())),
                Err("") => Err(Missing::NotAskedFor),
                Err(why) => Err(Missing::Unusable(why.to_owned())),
            },
            qemu: qemu.then(|| "/qemu".into()),
            kvm: kvm.map_err(str::to_owned),
        })
    }

    fn backend(choice: &Choice) -> Option<Backend> {
        choice.backend.as_ref().map(|(backend, _)| *backend)
    }

    #[test]
    fn firecracker_comes_first_then_kvm_then_emulation() {
        assert_eq!(backend(&found(Ok(()), true, Ok(()))), Some(Backend::Firecracker));
        assert_eq!(backend(&found(Ok(()), false, Ok(()))), Some(Backend::Firecracker));
        assert_eq!(backend(&found(Err(""), true, Ok(()))), Some(Backend::QemuKvm));
        assert_eq!(backend(&found(Err(""), true, Err("no"))), Some(Backend::QemuTcg));
        assert_eq!(backend(&found(Err(""), false, Ok(()))), None);
    }

    #[test]
    fn a_firecracker_that_is_there_and_not_used_is_told() {
        let choice = found(Err("it is too old"), true, Ok(()));
        assert_eq!(backend(&choice), Some(Backend::QemuKvm));
        assert_eq!(choice.reason, "KVM ran a guest's instructions; Firecracker is not used: it is too old");
        let none = found(Err("it is too old"), false, Ok(()));
        assert!(none.get().unwrap_err().message.contains("install the package qemu-system-x86"), "{none:?}");
    }
}
