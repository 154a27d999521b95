//! What is kept of a host whose test failed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder::Folder;

/// Keeps journal and console of a host that is down; where.
pub(super) fn keep(folder: &Folder) -> PathBuf {
    let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/failed-hosts").join(test);
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::copy(folder.console(), kept.join("console.txt")).unwrap();
    let journal = Command::new("journalctl")
        .arg("--directory")
        .arg(folder.written().join("var/log/journal"))
        .args(["--no-pager", "--output=short-monotonic"])
        .output()
        .unwrap();
    let text = if journal.status.success() { journal.stdout } else { journal.stderr };
    std::fs::write(kept.join("journal.txt"), text).unwrap();
    kept.canonicalize().unwrap()
}
