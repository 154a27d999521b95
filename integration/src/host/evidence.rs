//! What is kept of a host whose test failed, or was killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder::Place;

/// Keeps journal and console of a host that is down; where.
pub(super) fn keep(place: &Place) -> PathBuf {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/failed-hosts").join(place.test());
    std::fs::create_dir_all(&kept).unwrap();
    // A run that is killed early has no console yet.
    std::fs::write(kept.join("console.txt"), std::fs::read(place.console()).unwrap_or_default()).unwrap();
    let journal = Command::new("journalctl")
        .arg("--directory")
        .arg(place.journal())
        .args(["--no-pager", "--output=short-monotonic"])
        .output()
        .unwrap();
    let text = if journal.status.success() { journal.stdout } else { journal.stderr };
    std::fs::write(kept.join("journal.txt"), text).unwrap();
    kept.canonicalize().unwrap()
}
