//! An image out of Debian packages: one read-only EROFS file, the same bytes for the same packages, whoever builds.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, FileRecord};
use super::erofs;
use super::error::{At, Result};
use super::mmdebstrap::{self, Bootstrap};
use super::process;
use super::progress::{Cancel, Progress};
use super::recipe::{self, ImageRecipe, Settings};
use super::scratch::{self, Scratch};

/// Nobody reads manuals in a sandbox, and they are a fifth of a small system. Licences stay.
const UNWANTED: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
];

/// /usr is merged before the first package comes, as an installer does it.
const MERGE_USR: &str = r#"cd "$1" && for d in bin lib lib64 sbin; do mkdir -p usr/$d && ln -s usr/$d $d; done"#;

/// What must not be shared between VMs, or tells of the host that built: keys, ids, names, logs. And what has other
/// bytes each time although it means the same: caches, and what the Python installer compiled of itself on the way.
const ANONYMISE: &str = r#"cd "$1" && rm -f etc/ssh/ssh_host_*_key* && : >etc/machine-id && : >etc/hostname &&
    : >etc/resolv.conf && rm -f var/lib/dbus/machine-id var/cache/ldconfig/aux-cache var/cache/debconf/*-old &&
    find var/log -type f -delete && rm -rf usr/share/python3/debpython/__pycache__"#;

/// Mount points of the guest; whatever building left in them is not part of the image.
const MOUNT_POINTS: &str = "--exclude-regex=^(dev|proc|run|sys|tmp)/.";

/// A file system needs an identity, and the same bytes need the same one. Nothing finds images by it.
const UUID: &str = "62616e67-6572-4000-8000-696d61676573";

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    pub recipe: String,
    /// Of the recipe as it was then; none of those who wrote none down.
    #[serde(default)]
    pub recipe_digest: Option<Digest>,
    pub image: FileRecord,
    pub inodes: u64,
}

/// Builds `recipe` into the file `out`, which appears only when it is whole. Work is done beside it, or in the
/// public temporary folders where the way to `out` is closed to others.
pub fn build_image(
    recipe: &ImageRecipe,
    settings: &Settings,
    out: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ImageManifest> {
    process::require("mkfs.erofs", "erofs-utils")?;
    mmdebstrap::require()?;
    let folder = out.parent().unwrap_or(Path::new("."));
    let scratch = Scratch::for_tree(folder)?;
    scratch::require_room(&[(scratch.parent(), recipe.tree_room), (folder, recipe.image_room)])?;

    let tree = scratch.path().join("tree");
    let mut bootstrap = Bootstrap::new(recipe.variant, "directory", recipe.packages, recipe.epoch, scratch.path())
        .arg(format!("--customize-hook={ANONYMISE}"));
    if recipe.packages.contains(&"usr-is-merged") {
        bootstrap = bootstrap.arg(format!("--setup-hook={MERGE_USR}"));
    }
    for path in UNWANTED {
        bootstrap = bootstrap.arg(format!("--dpkgopt={path}"));
    }
    for path in recipe.masked {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        bootstrap = bootstrap
            .arg(format!("--customize-hook=install -d \"$1/etc/{folder}\" && ln -sf /dev/null \"$1/etc/{path}\""));
    }
    for (service, socket) in recipe.started_by_socket {
        bootstrap = bootstrap
            .arg(format!("--customize-hook=chroot \"$1\" systemctl disable {service}"))
            .arg(format!("--customize-hook=chroot \"$1\" systemctl enable {socket}"));
    }
    let command = bootstrap.into_command(recipe.suite, &tree, &settings.mirrors);
    process::run("mmdebstrap", command, cancel, &mut mmdebstrap::stages(progress))?;

    // Others may write to the file until it is finished (see `make`), so it lies where nobody else gets to.
    let private = tempfile::tempdir_in(folder).at(folder)?;
    let made = private.path().join("image");
    progress.stage("writing the image");
    make(&tree, &made, recipe.epoch, cancel)?;
    drop(scratch);

    progress.stage("checking the image");
    let superblock = verify_image(&File::open(&made).at(&made)?)?;
    let image = FileRecord::of(&made, progress, cancel)?;
    fs::rename(&made, out).at(out)?;
    let recipe_digest = Some(recipe::digest(recipe));
    Ok(ImageManifest { recipe: recipe.name.to_owned(), recipe_digest, image, inodes: superblock.inodes })
}

/// A quick look at an image before it is used: it is an EROFS file system that guests can read, and whole.
pub fn verify_image(image: &File) -> Result<erofs::Superblock> {
    erofs::check(image)
}

/// Makes the file system from `tree`. The program runs under the ids that own the tree, which may not make files
/// here: it gets ours as an open file and opens it again by that, for which the file's mode counts but no folder's.
fn make(tree: &Path, out: &Path, epoch: u64, cancel: &Cancel) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(out).at(out)?;
    file.set_permissions(Permissions::from_mode(0o666)).at(out)?;
    let mut mkfs = mmdebstrap::inside("mkfs.erofs");
    mkfs.args(["--quiet", "-U", UUID, MOUNT_POINTS, "/proc/self/fd/0"]).arg(tree);
    // Times later than this become this, and the file system gets it as its own.
    mkfs.env("SOURCE_DATE_EPOCH", epoch.to_string());
    mkfs.stdin(Stdio::from(file.try_clone().at(out)?));
    process::run("mkfs.erofs", mkfs, cancel, &mut |_| ())?;
    file.set_permissions(Permissions::from_mode(0o444)).at(out)?;
    file.sync_all().at(out)
}
