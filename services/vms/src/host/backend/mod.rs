//! Which VMM, and how: Firecracker where it and KVM are proved to work, QEMU under KVM next, QEMU's emulation last; or
//! what a VM's owner wants.

mod cache;
mod find;
mod firecracker;
mod probe;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Backend;
use banger_schemas::vms::Wanted;
use tokio::sync::OnceCell;

const QEMU: &str = "qemu-system-x86_64";

/// How a VM runs, and why so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) backend: Backend,
    pub(crate) vmm: PathBuf,
    pub(crate) reason: String,
}

/// One way to run VMs: the VMM's path and what speaks for it, or why it cannot be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    backend: Backend,
    outcome: std::result::Result<(PathBuf, String), Missing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    /// And what to do.
    NotInstalled(String),
    Unusable(String),
}

impl Missing {
    fn why(&self) -> &str {
        match self {
            Missing::NotInstalled(why) | Missing::Unusable(why) => why,
        }
    }
}

fn fits(backend: Backend, wanted: Wanted) -> bool {
    match wanted {
        Wanted::Auto => true,
        Wanted::Qemu => backend != Backend::Firecracker,
        Wanted::Firecracker => backend == Backend::Firecracker,
    }
}

/// The first that works of those that are wanted. It is told why a better one that is there does not.
fn decide(found: &[Found], wanted: Wanted) -> Result<Choice> {
    let mut aside = String::new();
    let mut why_none = "";
    for Found { backend, outcome } in found.iter().filter(|found| fits(found.backend, wanted)) {
        match outcome {
            Ok((vmm, what)) => {
                return Ok(Choice { backend: *backend, vmm: vmm.clone(), reason: format!("{what}{aside}") });
            }
            Err(missing) => {
                why_none = missing.why();
                if let Missing::Unusable(why) = missing {
                    aside.push_str(&format!("; {} is not used: {why}", backend.as_str()));
                }
            }
        }
    }
    Err(Error::new(Kind::Unavailable, why_none))
}

/// Looks at the host. The best first. Blocks, for seconds where KVM opens and does not work.
fn look(cache: &Path) -> Vec<Found> {
    let kvm = probe::open_kvm().map_err(Missing::Unusable);
    let qemu = find::program(QEMU)
        .ok_or_else(|| Missing::NotInstalled(format!("{QEMU} is not installed: install the package qemu-system-x86")));
    let under_kvm = |qemu: PathBuf| {
        kvm.clone()?;
        cache::verdict(&qemu, cache, probe::qemu).map_err(Missing::Unusable)?;
        Ok((qemu, "KVM ran a guest's instructions".to_owned()))
    };
    vec![
        Found { backend: Backend::Firecracker, outcome: firecracker(cache, &kvm) },
        Found { backend: Backend::QemuKvm, outcome: qemu.clone().and_then(under_kvm) },
        Found { backend: Backend::QemuTcg, outcome: qemu.map(|qemu| (qemu, "emulated".to_owned())) },
    ]
}

fn firecracker(
    cache: &Path,
    kvm: &std::result::Result<(), Missing>,
) -> std::result::Result<(PathBuf, String), Missing> {
    let (oldest, newest) = (firecracker::KNOWN.start(), firecracker::KNOWN.end());
    let missing = || {
        let cure = format!("put one on PATH ({oldest} to {newest} are known to work)");
        Missing::NotInstalled(format!("Firecracker is not installed: {cure}"))
    };
    let path = find::firecracker().ok_or_else(missing)?;
    let version = firecracker::version(&path).and_then(|version| version.check().map(|()| version));
    let version = version.map_err(Missing::Unusable)?;
    kvm.clone()?;
    cache::verdict(&path, cache, probe::firecracker).map_err(Missing::Unusable)?;
    let what =
        format!("Firecracker {version} ran a guest's instructions under KVM; known to work: {oldest} to {newest}");
    Ok((path, what))
}

/// What was found, once: in the life of a service by a cell, and between lives by a file that goes with the login,
/// because a probe that fails takes seconds.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    found: Arc<OnceCell<Vec<Found>>>,
    cache: PathBuf,
}

impl Backends {
    pub(crate) fn new(cache: PathBuf) -> Self {
        Backends { found: Arc::default(), cache }
    }

    async fn found(&self) -> Result<&[Found]> {
        let looked = self.found.get_or_try_init(|| async {
            let cache = self.cache.clone();
            banger_bus::effects::blocking(move || Ok(look(&cache))).await
        });
        looked.await.map(Vec::as_slice)
    }

    /// The backend and its VMM, or why there is none and what to do.
    pub(crate) async fn choose(&self, wanted: Wanted) -> Result<Choice> {
        decide(self.found().await?, wanted)
    }

    /// All of them: name, whether it works, what speaks for or against it.
    pub(crate) async fn all(&self) -> Vec<(String, bool, String)> {
        let found = self.found().await.unwrap_or_default();
        let row = |Found { backend, outcome }: &Found| {
            let what = outcome.as_ref().map_or_else(Missing::why, |(_, what)| what);
            (backend.as_str().to_owned(), outcome.is_ok(), what.to_owned())
        };
        found.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(why: &str) -> Missing {
        Missing::NotInstalled(why.to_owned())
    }

    fn broken(why: &str) -> Missing {
        Missing::Unusable(why.to_owned())
    }

    /// A host where these three are so.
    fn host(outcomes: [std::result::Result<(), Missing>; 3]) -> Vec<Found> {
        let backends = [Backend::Firecracker, Backend::QemuKvm, Backend::QemuTcg];
        let found = |(backend, outcome): (Backend, std::result::Result<(), Missing>)| Found {
            backend,
            outcome: outcome.map(|()| ("/vmm".into(), "it works".into())),
        };
        backends.into_iter().zip(outcomes).map(found).collect()
    }

    fn backend(found: &[Found], wanted: Wanted) -> Option<Backend> {
        decide(found, wanted).ok().map(|choice| choice.backend)
    }

    #[test]
    fn firecracker_comes_first_then_kvm_then_emulation() {
        let best = |outcomes| backend(&host(outcomes), Wanted::Auto);
        assert_eq!(best([Ok(()), Ok(()), Ok(())]), Some(Backend::Firecracker));
        assert_eq!(best([Ok(()), Err(absent("")), Err(absent(""))]), Some(Backend::Firecracker));
        assert_eq!(best([Err(absent("")), Ok(()), Ok(())]), Some(Backend::QemuKvm));
        assert_eq!(best([Err(absent("")), Err(broken("")), Ok(())]), Some(Backend::QemuTcg));
        assert_eq!(best([Err(absent("")), Err(absent("")), Err(absent(""))]), None);
    }

    #[test]
    fn what_is_wanted_is_used_or_refused_and_nothing_else_in_its_place() {
        let all = host([Ok(()), Ok(()), Ok(())]);
        assert_eq!(backend(&all, Wanted::Qemu), Some(Backend::QemuKvm));
        assert_eq!(backend(&all, Wanted::Firecracker), Some(Backend::Firecracker));
        let old = host([Err(broken("it is too old")), Err(broken("KVM hangs")), Ok(())]);
        assert_eq!(backend(&old, Wanted::Qemu), Some(Backend::QemuTcg));
        assert_eq!(decide(&old, Wanted::Firecracker).unwrap_err().message, "it is too old");
        let bare = host([Ok(()), Err(absent("install it")), Err(absent("install it"))]);
        assert_eq!(decide(&bare, Wanted::Qemu).unwrap_err().message, "install it");
    }

    #[test]
    fn a_better_one_that_is_there_and_not_used_is_told() {
        let reason = |outcomes| decide(&host(outcomes), Wanted::Auto).unwrap().reason;
        let told = reason([Err(broken("it is too old")), Ok(()), Ok(())]);
        assert_eq!(told, "it works; firecracker is not used: it is too old");
        assert_eq!(reason([Err(absent("install it")), Ok(()), Ok(())]), "it works");
    }
}
