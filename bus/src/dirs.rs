//! Where a user's banger keeps things. The only place that reads `XDG_*` and `BANGER_*` folders from the environment.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use banger_schemas::error::{Error, Kind, Result};

/// Longest path of a unix socket, less the NUL (`unix(7)`: `sun_path` is 108 bytes).
const SUN_PATH: usize = 107;

/// The folders of one banger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Records, disks, images: kept over reboots.
    pub state: PathBuf,
    /// Sockets, locks: gone at logout.
    pub runtime: PathBuf,
    /// Helper programs and the guest agent, as installed.
    pub lib: PathBuf,
}

impl Dirs {
    /// The folders of the user who runs this: `BANGER_STATE_DIR`, else `$XDG_STATE_HOME/banger`, else
    /// `~/.local/state/banger`; `$XDG_RUNTIME_DIR/banger`, else a checked folder of the temporary directory;
    /// `BANGER_LIB_DIR`, else `../lib/banger` beside the program.
    pub fn of_user() -> Result<Self> {
        let uid = nix::unistd::getuid();
        let state = match (var("BANGER_STATE_DIR"), var("XDG_STATE_HOME")) {
            (Some(dir), _) => dir,
            (None, Some(xdg)) => xdg.join("banger"),
            (None, None) => home()?.join(".local/state/banger"),
        };
        let runtime = match (var("BANGER_RUNTIME_DIR"), var("XDG_RUNTIME_DIR")) {
            (Some(dir), _) => dir,
            (None, Some(xdg)) if xdg.is_dir() => xdg.join("banger"),
            _ => std::env::temp_dir().join(format!("banger-{uid}")),
        };
        Ok(Dirs { state, runtime, lib: Dirs::lib_of_program()? })
    }

    /// Helper programs and the guest agent that belong to this program, whoever runs it.
    pub fn lib_of_program() -> Result<PathBuf> {
        var("BANGER_LIB_DIR").map_or_else(beside_program, Ok)
    }

    /// The folders of a service that is a process of its own: those that systemd made for its unit (systemd.exec(5),
    /// `StateDirectory=`, `RuntimeDirectory=`), else the user's; its helpers are installed beside it.
    pub fn of_service() -> Result<Self> {
        let (Some(state), Some(runtime)) = (var("STATE_DIRECTORY"), var("RUNTIME_DIRECTORY")) else {
            return Dirs::of_user();
        };
        Ok(Dirs { state, runtime, lib: var("BANGER_LIB_DIR").map_or_else(program_folder, Ok)? })
    }

    /// Makes the folders, for the owner alone, and refuses ones that somebody else could have prepared.
    pub fn prepare(&self) -> Result<()> {
        private_folder(&self.state)?;
        private_folder(&self.runtime)
    }

    /// The private bus of embedded mode.
    pub fn bus_socket(&self) -> Result<PathBuf> {
        let path = self.runtime.join("bus");
        if path.as_os_str().len() > SUN_PATH {
            return Err(Error::invalid(format!(
                "{} is too long for a socket ({SUN_PATH} bytes at most): set XDG_RUNTIME_DIR to a shorter path",
                path.display()
            )));
        }
        Ok(path)
    }

    /// A program or file that is installed with banger.
    pub fn helper(&self, name: &str) -> Result<PathBuf> {
        let path = self.lib.join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::new(
            Kind::Unavailable,
            format!(
                "{name} is not in {}: this installation is incomplete ('make build' makes it whole)",
                self.lib.display()
            ),
        ))
    }
}

pub(crate) fn var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from).filter(|p| p.is_absolute())
}

pub(crate) fn home() -> Result<PathBuf> {
    var("HOME").ok_or_else(|| Error::invalid("HOME is not set: set it, or BANGER_STATE_DIR"))
}

fn program_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|e| Error::internal(format!("cannot find my own program: {e}")))?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

fn beside_program() -> Result<PathBuf> {
    let bin = program_folder()?;
    Ok(bin.parent().unwrap_or(&bin).join("lib/banger"))
}

/// Makes `path` with mode 0700, and checks that it is a real folder of ours that nobody else may enter.
pub fn private_folder(path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(Kind::Unavailable, format!("cannot use {}: {e}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let meta = std::fs::symlink_metadata(path).map_err(failed)?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::new(
            Kind::Unavailable,
            format!(
                "{} is not a folder of yours: somebody else made it; remove it or set XDG_RUNTIME_DIR",
                path.display()
            ),
        ));
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_folder_too_long_for_a_socket_is_refused_with_the_cure() {
        let dirs = Dirs { state: "/s".into(), runtime: format!("/{}", "r".repeat(120)).into(), lib: "/l".into() };
        assert!(dirs.bus_socket().unwrap_err().message.contains("XDG_RUNTIME_DIR"));
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let dir = std::env::temp_dir().join(format!("banger-dirs-{}", std::process::id()));
        let link = dir.with_extension("link");
        private_folder(&dir).unwrap();
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let refused = private_folder(&link);
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        assert_eq!(refused.unwrap_err().kind, Kind::Unavailable);
    }
}
