//! What git says of a repo. Its own program is asked: nothing else reads every index and ignore rule as it does.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Failure;

/// Runs git in `dir`; its output, or what it complained of.
fn git<I, S>(dir: &Path, arguments: I) -> Result<Vec<u8>, Failure>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let output = Command::new("git")
        // A repo must not run programs of its choice because somebody lists its files (git-config(1)).
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never"])
        .args(["-c", "protocol.file.allow=always"])
        .arg("-C")
        .arg(dir)
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        .output()
        .map_err(|e| match e.kind() {
            ErrorKind::NotFound => Failure::new("git is not installed").hint("install the package git"),
            _ => Failure::new(format!("cannot run git: {e}")),
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The top of the working tree that `path` is in.
pub(super) fn top(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| Failure::new(format!("cannot use {shown}: {e}")))?;
    if !meta.is_dir() {
        return Err(Failure::new(format!("{shown} is no folder")).hint("give the folder of a git repo"));
    }
    let mut top = git(path, ["rev-parse", "--show-toplevel"]).map_err(|failure| {
        if failure.message.contains("dubious ownership") {
            return Failure::new(format!("{shown} belongs to somebody else, so git does not read it"))
                .hint(format!("'git config --global --add safe.directory {shown}' says that you trust it"));
        }
        Failure::new(format!("{shown} is in no git repo: {}", failure.message))
            .hint("'git init && git add .' makes it one; only tracked files are copied into the machine")
    })?;
    top.truncate(top.strip_suffix(b"\n").unwrap_or(&top).len());
    let top = PathBuf::from(std::ffi::OsString::from_vec(top));
    // A repo can name any folder as its working tree (core.worktree): the files of another one are not its own.
    if std::fs::symlink_metadata(top.join(".git")).is_err() {
        let elsewhere = top.display();
        return Err(Failure::new(format!("the repo at {shown} has its working tree elsewhere, in {elsewhere}"))
            .hint("its files are not copied: run from a repo whose .git lies in its working tree"));
    }
    Ok(top)
}

/// The files that go into the machine, sorted, without those that are deleted in the working tree.
pub(super) fn files(root: &Path, include_untracked: bool) -> Result<Vec<PathBuf>, Failure> {
    let staged = git(root, ["ls-files", "-z", "--stage"])?;
    let mut files = parse_stage(&staged)?;
    if include_untracked {
        let others = git(root, ["ls-files", "-z", "--others", "--exclude-standard"])?;
        files.extend(paths(&others));
    }
    files.sort();
    files.dedup();
    // A file that is tracked and not there is a deletion that the guest shall see too.
    files.retain(|file| std::fs::symlink_metadata(root.join(file)).is_ok());
    Ok(files)
}

fn paths(listing: &[u8]) -> impl Iterator<Item = PathBuf> {
    listing.split(|b| *b == 0).filter(|p| !p.is_empty()).map(|p| PathBuf::from(OsStr::from_bytes(p)))
}

/// `mode SP hash SP stage TAB path NUL` (git-ls-files(1)); mode 160000 is a submodule.
fn parse_stage(listing: &[u8]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut submodules = Vec::new();
    for entry in listing.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        let Some(tab) = entry.iter().position(|b| *b == b'\t') else {
            return Err(Failure::new("git listed something that is not understood"));
        };
        let path = PathBuf::from(OsStr::from_bytes(&entry[tab + 1..]));
        if entry.starts_with(b"160000 ") { submodules.push(path) } else { files.push(path) }
    }
    match submodules.first() {
        None => Ok(files),
        Some(first) => Err(Failure::new(format!("the repo has submodules ({}, …)", first.display()))
            .hint("they cannot be brought along yet: run with a repo without submodules, or clone inside the machine")),
    }
}

/// Makes `.git` for the guest in `folder`: one commit deep, with an index, and without remotes, hooks or
/// configuration of the user's.
pub(super) fn shallow_metadata(root: &Path, folder: &Path) -> Result<(), Failure> {
    let born = git(root, ["rev-parse", "--verify", "-q", "HEAD"]).is_ok();
    if born {
        let mut source = std::ffi::OsString::from("file://");
        source.push(root);
        let clone: [&OsStr; 9] = [
            "clone".as_ref(),
            "-q".as_ref(),
            "--depth=1".as_ref(),
            "--no-checkout".as_ref(),
            "--no-tags".as_ref(),
            "--template=".as_ref(),
            "--".as_ref(),
            &source,
            folder.as_os_str(),
        ];
        git(root, clone)?;
        git(folder, ["remote", "remove", "origin"])?;
        git(folder, ["reset", "-q", "--mixed", "HEAD"])?;
    } else {
        let branch = git(root, ["symbolic-ref", "--short", "HEAD"]).unwrap_or_else(|_| b"main".to_vec());
        let branch = String::from_utf8_lossy(branch.trim_ascii()).into_owned();
        std::fs::create_dir_all(folder)?;
        git(folder, ["init", "-q", "--template=", &format!("--initial-branch={branch}")])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bytes_and_submodules_are_refused() {
        let listing = b"100644 0000 0\ta\nb\x00120000 0000 0\tl\xff\0";
        let files = parse_stage(listing).unwrap();
        assert_eq!(files, [PathBuf::from("a\nb"), PathBuf::from(OsStr::from_bytes(b"l\xff"))]);
        let refused = parse_stage(b"160000 0000 0\tvendor/x\0").unwrap_err();
        assert!(refused.message.contains("vendor/x"));
    }
}
