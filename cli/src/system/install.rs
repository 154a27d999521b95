//! `banger system install`: all files or none, then users, the bus and systemd, then the services that run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zbus::Connection;

use super::exchange::{Exchange, Real, Wanted, exchange, missing_folders};
use super::host;
use super::manifest::{self, Entry, Manifest, below};
use super::plan::{Planned, plan};
use super::prefix::Prefix;
use super::source::Source;
use crate::error::Failure;
use crate::view::{note, out};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A user who may use banger without being asked for a password [default: who calls sudo]
    #[arg(long)]
    owner: Option<String>,
    /// The folder below which it is installed
    #[arg(long, default_value = "/usr/local")]
    prefix: Prefix,
    /// Only write the files, below this folder in place of the host's root: what a package holds
    #[arg(long, hide = true, conflicts_with_all = ["owner", "packaged"])]
    stage: Option<PathBuf>,
    /// The files are here already, and are a package's
    #[arg(long, hide = true)]
    packaged: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let source = Source::of_this_program()?;
    if let Some(root) = &args.stage {
        let wanted = Wanted { files: measured(plan(&args.prefix, &source)?)?, ..Wanted::default() };
        tell(&exchange(&Real, root, wanted)?.keep());
        return Ok(());
    }
    host::require_root()?;
    let bus = host::bus_of(args.packaged).await?;
    // Who unpacks a package has said nothing of who is to use it.
    let owner = args.owner.or_else(|| caller().filter(|_| !args.packaged));
    owner.as_deref().map_or(Ok(()), known)?;
    let root = Path::new("/");
    let installed = Manifest::read(root)?;
    if installed.as_ref().is_some_and(|i| i.packaged) && !args.packaged {
        return Err(Failure::new("banger is installed as a package, whose files are not replaced")
            .hint("update the package, or 'sudo apt remove banger' first"));
    }
    let upgrade = installed.is_some();
    let (wanted, manifest) = wanted(root, &args.prefix, &source, args.packaged, installed)?;
    let exchange = exchange(&Real, root, wanted)?;
    if let Err(failure) = activate(bus.as_ref(), &args.prefix, owner.as_deref()).await {
        return Err(back(exchange, bus.as_ref(), upgrade, failure).await);
    }
    tell(&exchange.keep());
    out(&format!("banger {} is installed in {}\n", manifest.name(), args.prefix))?;
    match owner {
        Some(owner) => out(&format!("{owner} is in the group banger, and needs no password\n"))?,
        None if host::members().is_empty() => {
            note("hint: 'sudo gpasswd --add USER banger' lets USER use it without a password");
        }
        None => {}
    }
    Ok(())
}

/// What has to be written and removed, and the manifest that is part of it.
fn wanted(
    root: &Path,
    prefix: &Prefix,
    source: &Source,
    packaged: bool,
    installed: Option<Manifest>,
) -> Result<(Wanted, Manifest), Failure> {
    let mut files = measured(plan(prefix, source)?)?;
    if packaged {
        // Documentation that the host has its packages unpacked without is not missing (dpkg(1), `--path-exclude`).
        files.retain(|(file, _)| below(root, &file.target).exists());
    }
    let before = installed.as_ref().map_or(&[][..], |i| &i.folders);
    let targets = files.iter().map(|(file, _)| file.target.as_path());
    let needed = missing_folders(root, targets.chain([Path::new(manifest::PATH)]));
    let in_use = |folder: &PathBuf| {
        Path::new(manifest::PATH).starts_with(folder) || files.iter().any(|(file, _)| file.target.starts_with(folder))
    };
    let (kept, gone_folders): (Vec<_>, Vec<_>) = before.iter().cloned().partition(in_use);
    // A path sorts before what is below it.
    let folders: BTreeSet<PathBuf> = needed.into_iter().chain(kept).collect();
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: source.commit(),
        prefix: prefix.to_string(),
        packaged,
        files: files.iter().map(|(file, entry)| (file.target.clone(), entry.clone())).collect(),
        folders: if packaged { Vec::new() } else { folders.into_iter().rev().collect() },
    };
    let old = installed.into_iter().flat_map(|i| i.files.into_keys());
    let gone = old.filter(|path| !manifest.files.contains_key(path)).collect();
    if packaged {
        files.clear();
    }
    files.extend(measured(vec![manifest.planned()?])?);
    Ok((Wanted { files, gone, gone_folders }, manifest))
}

fn measured(files: Vec<Planned>) -> Result<Vec<(Planned, Entry)>, Failure> {
    files.into_iter().map(|file| Entry::planned(&file).map(|entry| (file, entry))).collect()
}

async fn activate(bus: Option<&Connection>, prefix: &Prefix, owner: Option<&str>) -> Result<(), Failure> {
    host::make_accounts(prefix)?;
    owner.map_or(Ok(()), host::admit)?;
    let Some(bus) = bus else { return Ok(()) };
    host::require_polkit(bus).await?;
    host::reload(bus).await?;
    host::restart()
}

/// The host as it was before: its files, and those who have read the new ones.
async fn back(exchange: Exchange<'_, Real>, bus: Option<&Connection>, upgrade: bool, because: Failure) -> Failure {
    let failure = exchange.undo(because);
    let Some(bus) = bus else { return failure };
    let again = match host::reload(bus).await {
        Ok(()) if upgrade => host::restart(),
        done => done,
    };
    match again {
        Ok(()) => failure,
        Err(second) => Failure { message: format!("{}; and then: {}", failure.message, second.message), ..failure },
    }
}

/// Who asked, where root was asked for by sudo or pkexec.
fn caller() -> Option<String> {
    let by_pkexec = || {
        let uid = std::env::var("PKEXEC_UID").ok()?.parse().ok()?;
        Some(nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??.name)
    };
    std::env::var("SUDO_USER").ok().or_else(by_pkexec).filter(|name| !name.is_empty() && name != "root")
}

fn known(owner: &str) -> Result<(), Failure> {
    match nix::unistd::User::from_name(owner) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::new(format!("there is no user {owner}"))),
        Err(errno) => Err(Failure::new(format!("cannot look up the user {owner}: {errno}"))),
    }
}

/// What was not quite tidy.
pub(super) fn tell(left: &[String]) {
    left.iter().for_each(|line| note(&format!("note: {line}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Installs into a scratch root, without a host.
    fn install(root: &Path, prefix: &str, source: &Source) -> Manifest {
        let before = Manifest::read(root).unwrap();
        let (wanted, manifest) = wanted(root, &prefix.parse().unwrap(), source, false, before).unwrap();
        assert!(exchange(&Real, root, wanted).unwrap().keep().is_empty());
        manifest
    }

    /// Files below a folder, as the host sees them.
    fn files(root: &Path, folder: &Path) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(root, &path));
            } else {
                found.insert(Path::new("/").join(path.strip_prefix(root).unwrap()));
            }
        }
        found
    }

    #[test]
    fn another_prefix_takes_the_place_of_the_first_and_the_manifest_knows_every_file() {
        let (root, dist) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = Source { banger: dist.path().join("banger"), lib: dist.path().to_owned() };
        for program in super::super::source::programs().chain(["banger", "commit"]) {
            std::fs::write(dist.path().join(program), program).unwrap();
        }
        install(root.path(), "/usr/local", &source);
        assert!(root.path().join("usr/local/lib/banger/commit").exists());
        let manifest = install(root.path(), "/opt/banger", &source);
        assert_eq!(Manifest::read(root.path()).unwrap().unwrap(), manifest);
        assert_eq!(manifest.commit.as_deref(), Some("commit"));
        let known = manifest.files.keys().cloned().chain([PathBuf::from(manifest::PATH)]).collect();
        assert_eq!(files(root.path(), root.path()), known);
        assert!(!root.path().join("usr/local/lib").exists());
        assert!(!manifest.folders.contains(&"/usr/local/lib".into()), "{:?}", manifest.folders);

        let gone = known.into_iter().collect();
        let wanted = Wanted { gone, gone_folders: manifest.folders, ..Wanted::default() };
        assert!(exchange(&Real, root.path(), wanted).unwrap().keep().is_empty());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
