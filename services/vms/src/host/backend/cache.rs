//! What was found out of VMMs, kept for the next service.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What a verdict was reached with: another VMM or another host kernel is probed again.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Probed {
    vmm: PathBuf,
    modified: Option<SystemTime>,
    host_boot: String,
    kvm_error: Option<String>,
}

impl Probed {
    fn now(vmm: &Path) -> Self {
        let modified = std::fs::metadata(vmm).and_then(|m| m.modified()).ok();
        let host_boot = banger_bus::process::boot().unwrap_or_default();
        Probed { vmm: vmm.to_owned(), modified, host_boot, kvm_error: None }
    }

    fn same_but_verdict(&self, other: &Self) -> bool {
        (&self.vmm, self.modified, &self.host_boot) == (&other.vmm, other.modified, &other.host_boot)
    }
}

/// The probe's verdict, from the cache if it was reached with the same things.
pub(super) fn verdict(vmm: &Path, cache: &Path, probe: fn(&Path) -> Result<(), String>) -> Result<(), String> {
    let mut now = Probed::now(vmm);
    let stored = std::fs::read(cache).ok().and_then(|bytes| serde_json::from_slice::<Vec<Probed>>(&bytes).ok());
    let mut all = stored.unwrap_or_default();
    if let Some(known) = all.iter().find(|known| known.same_but_verdict(&now)) {
        return known.kvm_error.clone().map_or(Ok(()), Err);
    }
    let verdict = probe(vmm);
    now.kvm_error = verdict.clone().err();
    all.retain(|known| known.vmm != now.vmm);
    all.push(now);
    // Only a cache: without it the next service probes again.
    drop(serde_json::to_vec(&all).map(|bytes| std::fs::write(cache, bytes)));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_asked_for_once_for_each_vmm_and_again_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, vmm, other) = (folder.path().join("c"), folder.path().join("vmm"), folder.path().join("other"));
        std::fs::write(&vmm, "1").unwrap();
        std::fs::write(&other, "1").unwrap();
        assert_eq!(verdict(&vmm, &cache, |_| Err("it hangs".into())), Err("it hangs".into()));
        assert_eq!(verdict(&other, &cache, |_| Ok(())), Ok(()));
        assert_eq!(verdict(&vmm, &cache, |_| panic!("known")), Err("it hangs".into()));
        assert_eq!(verdict(&other, &cache, |_| panic!("known")), Ok(()));
        let later = std::fs::File::options().write(true).open(&vmm).unwrap();
        later.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(verdict(&vmm, &cache, |_| Ok(())), Ok(()));
    }
}
