//! `/root` on the work disk: at first use a copy of the image's, afterwards whatever its owner made of it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::mount::MsFlags;

use super::{Root, RootError, below, files, tree};

/// The name on the work disk. A folder below its top, so that `lost+found` stays out of sight.
const HOME: &str = "root";

/// Fills the home if this work disk has none yet.
pub(super) fn fill(root: &Root) -> Result<(), RootError> {
    let home = below(&root.work, HOME);
    if home.exists() { Ok(()) } else { first_fill(root, &home).map_err(files("/root")) }
}

/// Mounts the home.
pub(super) fn attach(root: &Root) -> Result<(), RootError> {
    let home = below(&root.work, HOME);
    if !Path::new("/root").is_dir() {
        fs::create_dir("/root").map_err(files("/root"))?;
    }
    super::attach(Some(&home), "/root", None, MsFlags::MS_BIND, "")
}

fn first_fill(root: &Root, home: &Path) -> io::Result<()> {
    tree::publish(&below(&root.image, HOME), &below(&root.work, ""), HOME)?;
    // Images ship it with the oddest owners, and sshd's StrictModes is right to mind.
    chown(home, Some(0), Some(0))?;
    fs::set_permissions(home, fs::Permissions::from_mode(0o700))
}
