//! Copies a tree of files with everything that is content: owners, modes, times, links, devices, attributes.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::sys::xattr;

/// Makes `folder/name` a copy of `source`, or an empty folder where there is no such folder. It appears complete
/// and in one step or not at all, even after a crash.
pub(super) fn publish(source: &Path, folder: &Path, name: &str) -> io::Result<()> {
    let half = folder.join(format!("{name}.incomplete"));
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::symlink_metadata(source) {
        Ok(metadata) if metadata.is_dir() => Copy::default().entry(source, &half, &metadata)?,
        _ => fs::create_dir(&half)?,
    }
    fs::rename(&half, folder.join(name))
}

#[derive(Debug, Default)]
struct Copy {
    /// Files with several names, by device and inode: where the first of them went.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn entry(&mut self, from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.linked.get(&(metadata.dev(), metadata.ino())) {
                return fs::hard_link(first, to);
            }
            self.linked.insert((metadata.dev(), metadata.ino()), to.to_owned());
        }
        if kind.is_dir() {
            fs::create_dir(to)?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                self.entry(&entry.path(), &to.join(entry.file_name()), &entry.metadata()?)?;
            }
        } else if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_file() {
            let copy = File::create(to)?;
            io::copy(&mut File::open(from)?, &mut &copy)?;
            allocate(&copy)?;
        } else {
            mknod(to, node_type(metadata), Mode::S_IRUSR, metadata.rdev())?;
        }
        dress(from, to, metadata)
    }
}

/// Lets the file have its blocks now. ext4 journals no name before the bytes whose blocks were given out earlier
/// (data=ordered), but gives them out seconds later: a crash in between would leave a home of empty files. To wait
/// for the disk here instead would cost every first boot a tenth of its time.
fn allocate(file: &File) -> io::Result<()> {
    // Begins to write what is dirty, which is all that is wanted of it.
    Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

fn node_type(metadata: &Metadata) -> SFlag {
    let kind = metadata.file_type();
    if kind.is_char_device() {
        SFlag::S_IFCHR
    } else if kind.is_block_device() {
        SFlag::S_IFBLK
    } else if kind.is_fifo() {
        SFlag::S_IFIFO
    } else {
        SFlag::S_IFSOCK
    }
}

/// Owner before mode, since a change of owner clears setuid; times last, since everything else changes them.
fn dress(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    xattr::copy(from, to)?;
    let accessed = TimeSpec::new(metadata.atime(), metadata.atime_nsec());
    let modified = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    Ok(utimensat(AT_FDCWD, to, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_modes_links_and_times_of_the_original_and_no_half_copy_is_ever_visible() {
        let place = tempfile::tempdir().unwrap();
        let from = place.path().join("from");
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), "text").unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("twin")).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        fs::create_dir(place.path().join("copy.incomplete")).unwrap();
        fs::write(place.path().join("copy.incomplete/rest"), "of a crash").unwrap();

        publish(&from, place.path(), "copy").unwrap();

        let copy = place.path().join("copy");
        let file = fs::metadata(copy.join("sub/file")).unwrap();
        assert_eq!(fs::read(copy.join("sub/file")).unwrap(), b"text");
        assert_eq!(file.mode() & 0o7777, 0o640);
        assert_eq!(file.ino(), fs::metadata(copy.join("twin")).unwrap().ino());
        assert_eq!(file.mtime_nsec(), fs::metadata(from.join("sub/file")).unwrap().mtime_nsec());
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("/nowhere"));
        assert!(!copy.join("rest").exists());
        assert!(!place.path().join("copy.incomplete").exists());
    }

    #[test]
    fn an_image_without_the_folder_gives_an_empty_one() {
        let place = tempfile::tempdir().unwrap();
        publish(&place.path().join("absent"), place.path(), "copy").unwrap();
        assert_eq!(fs::read_dir(place.path().join("copy")).unwrap().count(), 0);
    }
}
