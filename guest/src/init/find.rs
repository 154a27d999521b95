//! Finds the image's init.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An init that the image brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) path: PathBuf,
    pub(crate) flavor: Flavor,
}

/// What the agent must know of an init to start and to stop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    Systemd,
    Other,
}

const CANDIDATES: [&str; 3] = ["/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"];

/// The init of the running system, if it has one that is worth running.
pub(crate) fn find() -> Option<Init> {
    find_below(Path::new("/"))
}

fn find_below(root: &Path) -> Option<Init> {
    CANDIDATES.into_iter().find_map(|candidate| {
        let path = Path::new(candidate);
        let real = fs::canonicalize(root.join(path.strip_prefix("/").ok()?)).ok()?;
        let metadata = fs::metadata(&real).ok()?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return None;
        }
        match real.file_name()?.to_str()? {
            "systemd" => Some(Init { path: path.to_owned(), flavor: Flavor::Systemd }),
            // Container images of Alpine have busybox as init and nothing that it could start: it would only
            // fill the console with respawning gettys.
            "busybox" if !["sbin/openrc", "etc/init.d/rcS"].iter().any(|rc| root.join(rc).exists()) => None,
            _ => Some(Init { path: path.to_owned(), flavor: Flavor::Other }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_image_without_init_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find_below(root.path()), None);
        fs::create_dir(root.path().join("sbin")).unwrap();
        fs::write(root.path().join("sbin/init"), "not executable").unwrap();
        assert_eq!(find_below(root.path()), None);
    }

    #[test]
    fn systemd_is_known_behind_its_link() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("lib/systemd/systemd"));
        fs::create_dir(root.path().join("sbin")).unwrap();
        std::os::unix::fs::symlink("../lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        let init = find_below(root.path()).unwrap();
        assert_eq!(init, Init { path: "/sbin/init".into(), flavor: Flavor::Systemd });
    }

    #[test]
    fn busybox_is_an_init_only_with_something_to_start() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("bin/busybox"));
        fs::create_dir(root.path().join("sbin")).unwrap();
        std::os::unix::fs::symlink("../bin/busybox", root.path().join("sbin/init")).unwrap();
        assert_eq!(find_below(root.path()), None);
        program(&root.path().join("sbin/openrc"));
        assert_eq!(find_below(root.path()).unwrap().flavor, Flavor::Other);
    }
}
