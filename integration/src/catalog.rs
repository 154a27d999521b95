//! Images and kernels, built once a machine and kept by content outside the tree. Made by the user who needs them,
//! by banger's own commands.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::{Banger, Who};

const CACHE: &str = "/var/cache/banger-test";

/// The folder of a user's catalog.
pub(crate) fn folder(who: Who) -> PathBuf {
    let root = match std::env::var_os("BANGER_TEST_CACHE") {
        Some(root) => PathBuf::from(root),
        None if nix::unistd::geteuid().is_root() => Path::new(CACHE).to_owned(),
        None => who.home().join(".cache/banger-test"),
    };
    let folder = root.join(who.name());
    std::fs::create_dir_all(&folder).unwrap();
    who.own(&folder);
    folder
}

/// Has an image and the default kernel built, unless they are there. Tests that start together wait for one build.
pub(crate) fn provide(banger: &Banger, image: &str) {
    let path = folder(banger.who()).with_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
    let _turn = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    banger.ok(["kernel", "pull", "debian-bookworm-cloud"]);
    banger.ok(["image", "pull", image]);
}
