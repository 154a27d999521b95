//! From a program's name to its path, as execvp(3) would find it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_schemas::guest::ExecFailure;

/// Finds `program`: by its path if it has a slash, in the folders of `search` otherwise.
pub(super) fn find(program: &[u8], search: &[u8], cwd: &Path) -> Result<PathBuf, ExecFailure> {
    let name = Path::new(OsStr::from_bytes(program));
    if program.contains(&b'/') {
        return executable(&cwd.join(name));
    }
    if program.is_empty() {
        return Err(ExecFailure::NotFound);
    }
    let mut failure = ExecFailure::NotFound;
    for folder in search.split(|byte| *byte == b':') {
        // An empty folder is the working one, and a relative one starts there.
        match executable(&cwd.join(OsStr::from_bytes(folder)).join(name)) {
            Ok(path) => return Ok(path),
            Err(ExecFailure::NotFound) => {}
            Err(found) => failure = found,
        }
    }
    Err(failure)
}

fn executable(path: &Path) -> Result<PathBuf, ExecFailure> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ExecFailure::NotFound,
        _ => ExecFailure::NotExecutable(error.to_string()),
    })?;
    if metadata.is_dir() {
        Err(ExecFailure::NotExecutable("is a directory".into()))
    } else if metadata.permissions().mode() & 0o111 == 0 {
        Err(ExecFailure::NotExecutable("permission denied".into()))
    } else {
        Ok(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (name, mode) in [("a/tool", 0o644), ("b/tool", 0o755), ("b/other", 0o755), ("a/plain", 0o644)] {
            let path = place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        place
    }

    #[test]
    fn the_first_executable_in_the_path_is_taken() {
        let place = place();
        let search = format!("/nowhere:{0}/a:{0}/b", place.path().display());
        assert_eq!(find(b"tool", search.as_bytes(), Path::new("/")), Ok(place.path().join("b/tool")));
        assert_eq!(find(b"absent", search.as_bytes(), Path::new("/")), Err(ExecFailure::NotFound));
        assert!(matches!(find(b"plain", search.as_bytes(), Path::new("/")), Err(ExecFailure::NotExecutable(_))));
        assert_eq!(find(b"", search.as_bytes(), Path::new("/")), Err(ExecFailure::NotFound));
    }

    #[test]
    fn a_slash_means_a_path_from_the_working_directory() {
        let place = place();
        assert_eq!(find(b"b/other", b"", place.path()), Ok(place.path().join("b/other")));
        assert!(matches!(find(b"./b", b"", place.path()), Err(ExecFailure::NotExecutable(_))));
        assert_eq!(find(b"b/other/x", b"", place.path()), Err(ExecFailure::NotFound));
    }
}
