//! Packing a workspace: a tar stream of the working tree's files and a shallow `.git`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{SFlag, fstatat};
use tar::{Builder, EntryType, Header};

use super::{Workspace, git};
use crate::error::Failure;

/// Writes the workspace as a tar stream. Blocks.
pub(crate) fn write_tar(workspace: &Workspace, out: impl Write) -> Result<(), Failure> {
    let metadata = tempfile::tempdir()?;
    let shallow = metadata.path().join("repo");
    git::shallow_metadata(&workspace.root, &shallow)?;
    let mut tar = Builder::new(out);
    tar.follow_symlinks(false);
    append_tree(&mut tar, &shallow.join(".git"), Path::new(".git"))?;
    let root = File::open(&workspace.root)?;
    for file in &workspace.files {
        match append(&mut tar, &root, file) {
            // Deleted since it was listed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            outcome => outcome.map_err(|e| Failure::new(format!("cannot copy {}: {e}", file.display())))?,
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// Appends what we made ourselves.
fn append_tree<W: Write>(tar: &mut Builder<W>, from: &Path, to: &Path) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(from)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let meta = std::fs::symlink_metadata(from)?;
    let mut header = header(EntryType::Directory, meta.permissions().mode(), 0, meta.mtime());
    tar.append_data(&mut header, to, std::io::empty())?;
    for entry in entries {
        let (path, name) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            append_tree(tar, &path, &name)?;
        } else {
            append_file(tar, &name, File::open(&path)?)?;
        }
    }
    Ok(())
}

/// Appends one path of the tree as it is: a file's content, a link as a link. The folder it lies in is reached
/// without following any link, so a folder that was replaced by a link out of the tree leads nowhere.
fn append<W: Write>(tar: &mut Builder<W>, root: &File, path: &Path) -> std::io::Result<()> {
    let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let folder: OwnedFd = openat2(root, parent, OpenHow::new().flags(flags).resolve(beneath))?;
    let stat = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let file = openat2(&folder, name, OpenHow::new().flags(flags).resolve(beneath))?;
            append_file(tar, path, File::from(file))
        }
        SFlag::S_IFLNK => {
            let target = PathBuf::from(readlinkat(&folder, name)?);
            let mut header = header(EntryType::Symlink, 0o777, 0, stat.st_mtime);
            tar.append_link(&mut header, path, target)
        }
        // A tracked file that became a folder, a pipe or a device is not what git tracks.
        _ => Ok(()),
    }
}

/// Appends a file of exactly the size that its header says, whatever happens to it meanwhile.
fn append_file<W: Write>(tar: &mut Builder<W>, name: &Path, file: File) -> std::io::Result<()> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(());
    }
    let mut header = header(EntryType::Regular, meta.permissions().mode(), meta.len(), meta.mtime());
    let padded = file.take(meta.len()).chain(std::io::repeat(0)).take(meta.len());
    tar.append_data(&mut header, name, padded)
}

/// Everything belongs to root in the guest.
fn header(kind: EntryType, mode: u32, size: u64, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o777);
    header.set_size(size);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    fn sh(dir: &Path, script: &str) {
        let status = Command::new("sh").arg("-ec").arg(script).current_dir(dir).status().unwrap();
        assert!(status.success(), "{script}");
    }

    fn unpacked(workspace: &Workspace) -> tempfile::TempDir {
        let mut bytes = Vec::new();
        write_tar(workspace, &mut bytes).unwrap();
        let out = tempfile::tempdir().unwrap();
        tar::Archive::new(bytes.as_slice()).unpack(out.path()).unwrap();
        out
    }

    const REPO: &str = "git init -q . && git config user.email a@b && git config user.name n";

    #[test]
    fn the_working_trees_content_of_tracked_files_and_a_shallow_history() {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), REPO);
        sh(
            dir.path(),
            "echo one > a; echo x > gone; ln -s /etc/passwd out; printf nl > 'new\nline'; echo b > \"$(printf '\\377')\"",
        );
        sh(
            dir.path(),
            "git add -A && git commit -qm first && echo two > a && rm gone && git commit -qam second && echo three > a && echo secret > .env",
        );
        let workspace = Workspace::open(dir.path(), false).unwrap();
        let out = unpacked(&workspace);
        assert_eq!(std::fs::read_to_string(out.path().join("a")).unwrap(), "three\n");
        assert_eq!(std::fs::read_link(out.path().join("out")).unwrap(), Path::new("/etc/passwd"));
        assert!(out.path().join("new\nline").exists());
        assert!(out.path().join(std::ffi::OsStr::from_bytes(b"\xff")).exists());
        assert!(!out.path().join(".env").exists() && !out.path().join("gone").exists());
        sh(out.path(), "test \"$(git log --oneline | wc -l)\" = 1 && git log -1 --oneline | grep -q second");
        sh(out.path(), "test \"$(git status --porcelain)\" = ' M a'");
        assert!(workspace.listing().contains("\"new\\nline\"\n"));
        let all = Workspace::open(dir.path(), true).unwrap();
        assert!(all.listing().contains(".env"));
    }

    #[test]
    fn a_folder_that_became_a_link_out_of_the_tree_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        sh(dir.path(), REPO);
        sh(dir.path(), "mkdir d && echo inside > d/f && git add -A && git commit -qm c && rm -r d");
        std::fs::write(outside.path().join("f"), "outside").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
        let workspace = Workspace::open(dir.path(), false).unwrap();
        let refused = write_tar(&workspace, std::io::sink()).unwrap_err();
        assert!(refused.message.starts_with("cannot copy d/f"), "{}", refused.message);
    }

    #[test]
    fn a_repos_configuration_runs_nothing_and_names_no_other_folder() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        sh(dir.path(), REPO);
        sh(dir.path(), "echo a > a && git add a && git commit -qm c && echo b > b");
        let ran = elsewhere.path().join("ran");
        sh(dir.path(), &format!("git config core.fsmonitor 'touch {}; false'", ran.display()));
        unpacked(&Workspace::open(dir.path(), true).unwrap());
        assert!(!ran.exists(), "the repo's program ran");
        sh(dir.path(), &format!("git config core.worktree {}", elsewhere.path().display()));
        std::fs::write(elsewhere.path().join("a"), "not the repo's").unwrap();
        let refused = Workspace::open(dir.path(), false).unwrap_err();
        assert!(refused.message.contains("has its working tree elsewhere"), "{}", refused.message);
    }

    #[test]
    fn a_repo_without_a_commit_and_a_folder_that_is_no_repo() {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), "git init -q -b trunk . && echo a > a && git add a");
        let out = unpacked(&Workspace::open(dir.path(), false).unwrap());
        sh(out.path(), "test -f a && git symbolic-ref --short HEAD | grep -qx trunk");
        let plain = tempfile::tempdir().unwrap();
        let refused = Workspace::open(plain.path(), false).unwrap_err();
        assert!(refused.message.contains("is in no git repo"), "{}", refused.message);
        assert!(Workspace::open(&plain.path().join("absent"), false).is_err());
    }
}
