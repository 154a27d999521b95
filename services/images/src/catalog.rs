//! What is in the catalog: the stores as they are on the disk, and the recipes by which the rest can be made.
//!
//! Blocking; the actor calls it off its thread. The stores are the truth: an entry is a folder named by a digest
//! with a manifest inside, so a crash can leave nothing that has to be reconciled.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use banger_schemas::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::build::kernel::{MODULES, VMLINUX};
use crate::build::recipe;
use crate::build::{
    BuildError, Cancel, Digest, ImageManifest, ImageRecipe, KernelManifest, KernelRecipe, Progress, READ_ONLY,
    Settings, Store, build_image, build_kernel, pack_initramfs, verify_image, verify_kernel,
};
use crate::workshop::{self, Workshop};

/// The image's file in its folder.
const IMAGE: &str = "image.erofs";

/// An image, or a kernel with its modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Class {
    Image,
    Kernel,
}

impl Class {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Class::Image => "image",
            Class::Kernel => "kernel",
        }
    }
}

/// Something that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) class: Class,
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Seconds since the epoch.
    pub(crate) created: u64,
    /// Where it came from, in words.
    pub(crate) source: String,
    /// Of a kernel: as `uname -r` says.
    pub(crate) version: String,
    /// Made by a recipe that says something else by now.
    pub(crate) outdated: bool,
}

/// The stores of a host.
#[derive(Debug)]
pub(crate) struct Catalog {
    images: Store,
    kernels: Store,
    /// Initramfs files by kernel and agent: made in milliseconds, so only a cache.
    initramfs: PathBuf,
    agent: PathBuf,
    settings: Settings,
    workshop: Workshop,
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Error {
        let kind = match &error {
            BuildError::MissingProgram { .. }
            | BuildError::NoSubordinateIds { .. }
            | BuildError::NoWorkFolder { .. } => Kind::Unavailable,
            BuildError::NoRoom { .. } => Kind::NoSpace,
            BuildError::Cancelled => Kind::Canceled,
            BuildError::Corrupt { .. } => Kind::Corrupt,
            BuildError::Unsupported { .. } | BuildError::MissingModule(_) | BuildError::ModuleCycle(_) => {
                Kind::NotSupported
            }
            BuildError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Kind::NoSpace,
            BuildError::Failed { .. } | BuildError::Io { .. } => Kind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

impl Catalog {
    /// Opens the stores below `folder` and removes what interrupted builds left.
    pub(crate) fn open(folder: &Path, agent: PathBuf, settings: Settings, workshop: Workshop) -> Result<Self> {
        let (images, kernels) = (Store::open(&folder.join("images"))?, Store::open(&folder.join("kernels"))?);
        let left = images.sweep()? + kernels.sweep()?;
        if left > 0 {
            tracing::info!(left, "what interrupted builds left behind is removed");
        }
        let initramfs = folder.join("initramfs");
        fs::create_dir_all(&initramfs).map_err(Error::internal)?;
        Ok(Catalog { images, kernels, initramfs, agent, settings, workshop })
    }

    fn store(&self, class: Class) -> &Store {
        match class {
            Class::Image => &self.images,
            Class::Kernel => &self.kernels,
        }
    }

    /// Everything that is here and whole. Damaged entries are told of and left out.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for class in [Class::Image, Class::Kernel] {
            for digest in self.store(class).list()? {
                match self.entry(class, &digest) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => tracing::warn!(%digest, %error, "a damaged {} is left out", class.word()),
                }
            }
        }
        // Of several builds of one recipe the newest counts, so it comes last.
        entries.sort_by(|a, b| (a.class, &a.name, a.created).cmp(&(b.class, &b.name, b.created)));
        Ok(entries)
    }

    fn entry(&self, class: Class, digest: &Digest) -> Result<Entry> {
        let place = self.place(class, digest)?;
        let modified = fs::metadata(&place).and_then(|m| m.modified()).map_err(Error::internal)?;
        let created = modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let digest = *digest;
        Ok(match class {
            Class::Image => {
                let manifest: ImageManifest = self.images.manifest(&digest)?;
                let recipe = ImageRecipe::find(&manifest.recipe).map(|recipe| (recipe.suite, recipe::digest(recipe)));
                let (source, outdated) = origin(recipe, manifest.recipe_digest);
                let size = manifest.image.size;
                Entry { class, name: manifest.recipe, digest, size, created, source, version: String::new(), outdated }
            }
            Class::Kernel => {
                let manifest: KernelManifest = self.kernels.manifest(&digest)?;
                let recipe = KernelRecipe::find(&manifest.recipe).map(|recipe| (recipe.suite, recipe::digest(recipe)));
                let (source, outdated) = origin(recipe, manifest.recipe_digest);
                let size = manifest.vmlinux.size + manifest.modules.size;
                Entry {
                    class,
                    name: manifest.recipe,
                    digest,
                    size,
                    created,
                    source,
                    version: manifest.release,
                    outdated,
                }
            }
        })
    }

    fn place(&self, class: Class, digest: &Digest) -> Result<PathBuf> {
        self.store(class).find(digest).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("{} {digest} is not here any more: pull it again", class.word()))
        })
    }

    /// Makes what the recipe of this name says.
    pub(crate) fn build(&self, class: Class, name: &str, progress: &dyn Progress, cancel: &Cancel) -> Result<Entry> {
        let digest = match &self.workshop {
            Workshop::Here => self.build_here(class, name, progress, cancel)?,
            Workshop::Unit(socket) => workshop::order(socket, class, name, progress, cancel)?,
        };
        self.entry(class, &digest)
    }

    /// The same, in this process.
    pub(crate) fn build_here(
        &self,
        class: Class,
        name: &str,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Digest> {
        let stage = self.store(class).stage()?;
        let digest = match class {
            Class::Image => {
                let recipe = ImageRecipe::find(name).ok_or_else(|| unknown(class, name))?;
                let out = stage.path().join(IMAGE);
                let manifest = build_image(recipe, &self.settings, &out, progress, cancel)?;
                stage.describe(&manifest)?;
                manifest.image.digest
            }
            Class::Kernel => {
                let recipe = KernelRecipe::find(name).ok_or_else(|| unknown(class, name))?;
                let manifest = build_kernel(recipe, &self.settings, stage.path(), progress, cancel)?;
                stage.describe(&manifest)?;
                manifest.digest()
            }
        };
        cancel.check()?;
        self.store(class).publish(stage, &digest)?;
        Ok(digest)
    }

    pub(crate) fn remove(&self, class: Class, digest: &Digest) -> Result<()> {
        Ok(self.store(class).remove(digest)?)
    }

    /// Kernel, initramfs and image, looked at and open for reading.
    pub(crate) fn open_for_boot(&self, image: &Digest, kernel: &Digest) -> Result<[OwnedFd; 3]> {
        let folder = self.place(Class::Kernel, kernel)?;
        let manifest: KernelManifest = self.kernels.manifest(kernel)?;
        verify_kernel(&folder, &manifest)?;
        let initramfs = self.initramfs(kernel, &folder)?;
        let image = open(&self.place(Class::Image, image)?.join(IMAGE))?;
        verify_image(&image)?;
        Ok([open(&folder.join(VMLINUX))?.into(), open(&initramfs)?.into(), image.into()])
    }

    /// A word for what is booted of these with the agent that is installed now: the same word, the same contents.
    pub(crate) fn contents(&self, image: &Digest, kernel: &Digest) -> Result<String> {
        Ok(format!("{image}-{}", self.initramfs_name(kernel)?))
    }

    fn initramfs_name(&self, kernel: &Digest) -> Result<String> {
        let meta = fs::metadata(&self.agent).map_err(|e| {
            Error::new(Kind::Unavailable, format!("the guest agent {} cannot be read: {e}", self.agent.display()))
        })?;
        let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        // An agent that is installed anew has another time: a stamp is enough, and costs no reading of it.
        Ok(format!("{kernel}-{:x}-{:x}", changed.as_nanos(), meta.len()))
    }

    /// The initramfs of a kernel with the agent that is installed now.
    fn initramfs(&self, kernel: &Digest, folder: &Path) -> Result<PathBuf> {
        let path = self.initramfs.join(self.initramfs_name(kernel)?);
        if !path.exists() {
            let making = tempfile::NamedTempFile::new_in(&self.initramfs).map_err(Error::internal)?;
            pack_initramfs(&folder.join(MODULES), &self.agent, making.path())?;
            let read_only = fs::Permissions::from_mode(READ_ONLY);
            fs::set_permissions(making.path(), read_only).map_err(Error::internal)?;
            self.forget_initramfs(kernel);
            making.persist(&path).map_err(|e| Error::internal(e.error))?;
        }
        Ok(path)
    }

    /// Older agents' files of a kernel. Whoever has one open keeps it.
    fn forget_initramfs(&self, kernel: &Digest) {
        let Ok(files) = fs::read_dir(&self.initramfs) else { return };
        let prefix = format!("{kernel}-");
        for file in files.flatten().filter(|f| f.file_name().to_string_lossy().starts_with(&prefix)) {
            drop(fs::remove_file(file.path()));
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::new(Kind::Corrupt, format!("{} cannot be opened: {e}", path.display())))
}

/// Where something came from, in words, and whether its recipe (suite, digest) is another than made it.
fn origin(recipe: Option<(&str, Digest)>, made_by: Option<Digest>) -> (String, bool) {
    recipe.map_or_else(Default::default, |(suite, digest)| {
        (format!("recipe, from the packages of Debian {suite}"), made_by != Some(digest))
    })
}

/// Names that can be made here.
pub(crate) fn recipes(class: Class) -> Vec<&'static str> {
    match class {
        Class::Image => recipe::IMAGES.iter().map(|r| r.name).collect(),
        Class::Kernel => recipe::KERNELS.iter().map(|r| r.name).collect(),
    }
}

/// The error for a name that is neither here nor can be made.
pub(crate) fn unknown(class: Class, name: &str) -> Error {
    let word = class.word();
    Error::new(Kind::NotFound, format!("there is no {word} '{name}': there are {}", recipes(class).join(", ")))
}
