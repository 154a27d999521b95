//! Which files banger is, on a host: what goes where. Pure.

use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::docs;
use super::prefix::{Place, Prefix};
use super::source::{COMMIT, FILES, Source, programs};

/// A file to be.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// Its path on the host.
    pub(crate) target: PathBuf,
    pub(crate) mode: u32,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// The content of a file that is here.
    Copy(PathBuf),
}

impl Planned {
    pub(crate) fn data(target: PathBuf, bytes: impl Into<Vec<u8>>) -> Self {
        Planned { target, mode: 0o644, content: Content::Bytes(bytes.into()) }
    }

    fn program(target: PathBuf, source: PathBuf) -> Self {
        Planned { target, mode: 0o755, content: Content::Copy(source) }
    }
}

/// All files of an installation but its manifest.
pub(crate) fn plan(prefix: &Prefix, source: &Source) -> std::io::Result<Vec<Planned>> {
    let mut files = vec![Planned::program(prefix.bin().join("banger"), source.banger.clone())];
    files.extend(programs().map(|name| Planned::program(prefix.lib().join(name), source.lib.join(name))));
    files.extend(source.commit().map(|commit| Planned::data(prefix.lib().join(COMMIT), format!("{commit}\n"))));
    files.extend(FILES.iter().filter_map(|(path, text)| of_the_repo(prefix, path, text)));
    if !prefix.is_below_usr() {
        let seen = format!("[Service]\nBindReadOnlyPaths={}\n", prefix.lib().display());
        files.push(Planned::data(prefix.folder(Place::Units).join("banger-vm@.service.d/prefix.conf"), seen));
    }
    let mut pages = docs::completions(crate::Cli::command());
    pages.extend(docs::man_pages(crate::Cli::command())?);
    files.extend(pages.into_iter().map(|(path, bytes)| Planned::data(prefix.share().join(path), bytes)));
    Ok(files)
}

fn of_the_repo(prefix: &Prefix, path: &str, text: &str) -> Option<Planned> {
    let (place, below) = Place::of(path)?;
    Some(Planned::data(prefix.folder(place).join(below), prefix.substitute(text)))
}

/// The folders above a file, the nearest first, without the root.
pub(crate) fn above(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(|folder| folder.parent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::source::SERVICES;
    use std::collections::BTreeSet;

    fn targets(prefix: &str) -> BTreeSet<String> {
        let source = Source { banger: "/dist/bin/banger".into(), lib: "/dist/lib/banger".into() };
        let files = plan(&prefix.parse().unwrap(), &source).unwrap();
        let targets: BTreeSet<String> = files.iter().map(|f| f.target.display().to_string()).collect();
        assert_eq!(targets.len(), files.len(), "two files go to one place");
        targets
    }

    #[test]
    fn every_file_of_the_repo_but_a_readme_has_its_place() {
        assert!(FILES.len() > 20, "the files are not in the program");
        let placeless: Vec<_> =
            FILES.iter().filter(|(path, _)| Place::of(path).is_none()).map(|(path, _)| *path).collect();
        assert_eq!(placeless, ["systemd/README.md", "dbus-policy/README.md"]);
    }

    #[test]
    fn every_service_is_a_unit_that_the_bus_starts() {
        let targets = targets("/usr/local");
        for (program, name) in SERVICES {
            for path in [
                format!("/usr/local/lib/banger/{program}"),
                format!("/usr/local/lib/systemd/system/{program}.service"),
                format!("/usr/local/share/dbus-1/system-services/{name}.service"),
                format!("/etc/dbus-1/system.d/{name}.conf"),
            ] {
                assert!(targets.contains(&path), "{path}");
            }
        }
        assert!(targets.contains("/usr/local/share/man/man1/banger.1.gz"));
    }

    #[test]
    fn the_distribution_s_prefix_has_nothing_of_the_administrator_s() {
        let foreign: Vec<String> = targets("/usr").into_iter().filter(|path| !path.starts_with("/usr/")).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert!(targets("/usr").iter().all(|path| !path.starts_with("/usr/local/")));
    }

    #[test]
    fn units_name_the_prefix_that_they_are_installed_for() {
        let source = Source { banger: "/b".into(), lib: "/l".into() };
        for file in plan(&"/opt/x".parse().unwrap(), &source).unwrap() {
            if let Content::Bytes(bytes) = file.content {
                let text = String::from_utf8_lossy(&bytes);
                assert!(!text.contains("/usr/local"), "{} names /usr/local", file.target.display());
            }
        }
        assert!(targets("/opt/x").contains("/etc/systemd/system/banger-vm@.service.d/prefix.conf"));
    }
}
