//! ssh: the host key that makes this VM known, and the keys that may log in.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::files::replace;

const HOST_KEY: &str = "ssh_host_ed25519_key";

/// Installs the host's private key, if the image has an ssh server that looks for it. On a disk that no VM had before, the
/// keys that the image brought go: everyone who has the image has them.
pub(super) fn install_host_key(folder: &Path, key: &str, first: bool) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    if first {
        remove_keys_of_the_image(folder)?;
    }
    let newline = if key.ends_with('\n') { "" } else { "\n" };
    replace(&folder.join(HOST_KEY), format!("{key}{newline}").as_bytes(), 0o600)
}

fn remove_keys_of_the_image(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub")) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Lets these keys log in as root, beside those already allowed. sshd's StrictModes want owner and mode just so.
pub(super) fn authorize(home: &Path, keys: &[String]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    belongs_to_its_owner(home)?;
    let folder = home.join(".ssh");
    if !folder.exists() {
        DirBuilder::new().mode(0o700).create(&folder)?;
    }
    chown(&folder, Some(owner(home)?), None)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    let path = folder.join("authorized_keys");
    let old = fs::read(&path).unwrap_or_default();
    replace(&path, merged(&String::from_utf8_lossy(&old), keys).as_bytes(), 0o600)
}

/// Takes the write permission of group and others, which sshd refuses, and nothing else.
fn belongs_to_its_owner(home: &Path) -> io::Result<()> {
    let mode = fs::metadata(home)?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        fs::set_permissions(home, Permissions::from_mode(mode & !0o022))?;
    }
    Ok(())
}

fn owner(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.uid())
}

/// The lines there are, and those of `keys` that are missing.
fn merged(old: &str, keys: &[String]) -> String {
    let mut lines: Vec<&str> = old.lines().collect();
    for key in keys.iter().flat_map(|key| key.lines()) {
        if !key.is_empty() && !lines.contains(&key) {
            lines.push(key);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn keys_are_added_once_and_the_modes_are_what_sshd_wants() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o775)).unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(home.path().join(".ssh/authorized_keys"), "ssh-ed25519 A mine").unwrap();
        let keys = ["ssh-ed25519 B yours".to_owned(), "ssh-ed25519 A mine".to_owned()];
        authorize(home.path(), &keys).unwrap();
        authorize(home.path(), &keys).unwrap();
        let file = home.path().join(".ssh/authorized_keys");
        assert_eq!(fs::read_to_string(&file).unwrap(), "ssh-ed25519 A mine\nssh-ed25519 B yours\n");
        assert_eq!((mode(home.path()), mode(&home.path().join(".ssh")), mode(&file)), (0o755, 0o700, 0o600));
    }

    #[test]
    fn the_keys_that_an_image_brought_go_at_the_first_boot_only() {
        let folder = tempfile::tempdir().unwrap();
        let rsa = folder.path().join("ssh_host_rsa_key");
        for name in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key.pub", "sshd_config"] {
            fs::write(folder.path().join(name), "image").unwrap();
        }
        install_host_key(folder.path(), "PRIVATE", true).unwrap();
        assert!(!rsa.exists() && folder.path().join("sshd_config").exists());
        assert_eq!(fs::read_to_string(folder.path().join(HOST_KEY)).unwrap(), "PRIVATE\n");
        assert_eq!(mode(&folder.path().join(HOST_KEY)), 0o600);
        fs::write(&rsa, "made by the user").unwrap();
        install_host_key(folder.path(), "PRIVATE", false).unwrap();
        assert!(rsa.exists());
        let none = folder.path().join("none");
        install_host_key(&none, "PRIVATE", true).unwrap();
        assert!(!none.exists());
    }
}
