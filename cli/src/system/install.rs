//! `banger system install`: all files or none, then users, the bus and systemd, then the services that run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::exchange::{Exchange, Real, Wanted, exchange, missing_folders};
use super::host;
use super::manifest::{Entry, Manifest};
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
        return tell(exchange(&Real, root, wanted)?.keep());
    }
    host::require_root()?;
    let bus = host::bus().await?;
    host::require_polkit(&bus).await?;
    let owner = args.owner.or_else(caller);
    owner.as_deref().map_or(Ok(()), known)?;
    let root = Path::new("/");
    let installed = Manifest::read(root)?;
    if installed.as_ref().is_some_and(|i| i.packaged) && !args.packaged {
        return Err(Failure::new("banger is installed as a package, whose files are not replaced")
            .hint("update the package, or 'sudo apt remove banger' first"));
    }
    let (wanted, manifest) = wanted(root, &args.prefix, &source, args.packaged, installed)?;
    let exchange = exchange(&Real, root, wanted)?;
    if let Err(failure) = activate(&bus, &args.prefix, owner.as_deref()).await {
        return Err(back(exchange, &bus, failure).await);
    }
    tell(exchange.keep())?;
    out(&format!("banger {} is installed in {}\n", manifest.name(), args.prefix))?;
    match owner {
        Some(owner) => out(&format!("{owner} is in the group banger, and needs no password\n")),
        None => {
            note("hint: 'banger system install --owner USER' lets USER use it without a password");
            Ok(())
        }
    }
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
    let before = installed.as_ref().map_or(&[][..], |i| &i.folders);
    let needed: Vec<PathBuf> = missing_folders(root, files.iter().map(|(file, _)| file.target.as_path()));
    let in_use = |folder: &PathBuf| files.iter().any(|(file, _)| file.target.starts_with(folder));
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

async fn activate(bus: &zbus::Connection, prefix: &Prefix, owner: Option<&str>) -> Result<(), Failure> {
    host::make_accounts(prefix)?;
    owner.map_or(Ok(()), host::admit)?;
    host::reload(bus).await?;
    host::restart()
}

/// The host as it was before: its files, and those who have read the new ones.
async fn back(exchange: Exchange<'_, Real>, bus: &zbus::Connection, because: Failure) -> Failure {
    let failure = exchange.undo(because);
    let again = match host::reload(bus).await {
        Ok(()) => host::restart(),
        failed => failed,
    };
    match again {
        Ok(()) => Failure { message: format!("{}; nothing was installed", failure.message), ..failure },
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
pub(super) fn tell(left: Vec<String>) -> Result<(), Failure> {
    left.iter().for_each(|line| note(&format!("note: {line}")));
    Ok(())
}
