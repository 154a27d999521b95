//! `banger system status`: what is installed, what runs, and where the two, or this program, have drifted apart.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_bus::service::Address;
use zbus::Connection;
use zbus::fdo::{DBusProxy, PropertiesProxy};

use super::host::{self, UnitState};
use super::manifest::{Entry, Manifest, below, named};
use super::restart::installed;
use super::source::{SERVICES, Source};
use crate::check::{self, Row, Verdict};
use crate::error::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const INSTALL: &str = "sudo banger system install";
const RESTART: &str = "sudo banger system restart";

pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    host::require_systemd()?;
    let manifest = installed()?;
    let source = Source::of_this_program()?;
    let by = if manifest.packaged { ", by its package" } else { "" };
    let found = format!("{} in {}{by}", manifest.name(), manifest.prefix);
    let mut rows = vec![Row::new(Verdict::Pass, "installed", found, ""), of_this_program(&manifest, &source)];
    rows.extend(files(Path::new("/"), &manifest));
    let bus = Address::System.connect().await?;
    for (program, name) in SERVICES {
        let state = host::unit_state(&format!("{program}.service"))?;
        let changed = Path::new(&manifest.prefix).join("lib/banger").join(program).metadata().map(|m| m.ctime()).ok();
        let version = if state.active == "active" { version(&bus, name).await } else { None };
        rows.push(service(program, &state, changed, version.as_deref(), &manifest.version));
    }
    check::show(&rows, args.json)
}

fn of_this_program(manifest: &Manifest, source: &Source) -> Row {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), source.commit());
    let same = version == manifest.version && commit == manifest.commit;
    let (verdict, cure) = if same { (Verdict::Pass, "") } else { (Verdict::Warn, INSTALL) };
    Row::new(verdict, "this program", named(version, commit.as_deref()), cure)
}

/// What became of the files since they were installed.
fn files(root: &Path, manifest: &Manifest) -> Vec<Row> {
    let cure = if manifest.packaged { "sudo apt reinstall banger" } else { INSTALL };
    let mut whole = 0;
    let mut unread = Vec::new();
    let mut rows = Vec::new();
    let mut wrong =
        |path: &PathBuf, what: &str| rows.push(Row::new(Verdict::Fail, path.display().to_string(), what, cure));
    for (path, entry) in &manifest.files {
        match Entry::on_disk(&below(root, path)) {
            Ok(Some(found)) if found == *entry => whole += 1,
            Ok(Some(_)) => wrong(path, "changed since it was installed"),
            Ok(None) => wrong(path, "missing"),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => unread.push(path.display().to_string()),
            Err(e) => wrong(path, &e.to_string()),
        }
    }
    rows.push(Row::new(Verdict::Pass, "files", format!("{whole} as they were installed"), ""));
    if !unread.is_empty() {
        let found = format!("only root can check {}", unread.join(", "));
        rows.push(Row::new(Verdict::Warn, "files", found, "sudo banger system status"));
    }
    rows
}

/// The version that a service says it is, if it says so.
async fn version(bus: &Connection, name: &str) -> Option<String> {
    // Nobody is started for this.
    if !DBusProxy::new(bus).await.ok()?.name_has_owner(name.try_into().ok()?).await.ok()? {
        return None;
    }
    let path = format!("/{}", name.replace('.', "/"));
    let properties = PropertiesProxy::builder(bus).destination(name).path(path).build().await.ok()?;
    let interface = format!("{name}.Manager");
    let version = properties.get(interface.as_str().try_into().ok()?, "Version").await.ok()?;
    version.downcast_ref::<&str>().ok().map(str::to_owned)
}

/// `changed`: when its program was put into place.
fn service(program: &str, state: &UnitState, changed: Option<i64>, version: Option<&str>, installed: &str) -> Row {
    let journal = format!("journalctl --boot --unit {program}");
    let row = |verdict, found: String, cure: &str| Row::new(verdict, program, found, cure);
    let older = state.started.zip(changed).is_some_and(|(started, changed)| started < changed);
    match (state.load.as_str(), state.active.as_str()) {
        ("loaded", "active" | "reloading" | "deactivating") => match version {
            Some(version) if version != installed => row(Verdict::Warn, format!("runs, as version {version}"), RESTART),
            _ if older => row(Verdict::Warn, "runs, and was started before this installation".into(), RESTART),
            Some(version) => row(Verdict::Pass, format!("runs, as version {version}"), ""),
            None => row(Verdict::Pass, "runs".into(), ""),
        },
        ("loaded", "inactive") => row(Verdict::Pass, "starts when it is asked for".into(), ""),
        ("loaded", "activating") => row(Verdict::Warn, "is starting".into(), &journal),
        ("loaded", active) => row(Verdict::Fail, active.to_owned(), &journal),
        ("masked", _) => row(Verdict::Fail, "masked".into(), &format!("sudo systemctl unmask {program}")),
        (load, _) => row(Verdict::Fail, format!("its unit is {load}"), INSTALL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(load: &str, active: &str, started: Option<i64>) -> UnitState {
        UnitState { load: load.into(), active: active.into(), started }
    }

    #[test]
    fn a_service_that_runs_what_is_no_longer_installed_shows() {
        let says = |state: UnitState, version| {
            let row = service("banger-vms", &state, Some(100), version, "2");
            (row.verdict, row.cure)
        };
        let pass = (Verdict::Pass, String::new());
        let stale = (Verdict::Warn, RESTART.to_owned());
        assert_eq!(says(state("loaded", "active", Some(100)), Some("2")), pass);
        assert_eq!(says(state("loaded", "active", Some(99)), Some("2")), stale);
        assert_eq!(says(state("loaded", "active", Some(99)), None), stale);
        assert_eq!(says(state("loaded", "active", Some(101)), Some("1")), stale);
        assert_eq!(says(state("loaded", "inactive", None), None), pass);
        assert_eq!(says(state("loaded", "failed", None), None).0, Verdict::Fail);
        assert_eq!(says(state("not-found", "inactive", None), None), (Verdict::Fail, INSTALL.to_owned()));
    }

    #[test]
    fn files_that_were_touched_or_are_gone_are_named() {
        let root = tempfile::tempdir().unwrap();
        let entry = |text: &str| {
            let file = super::super::plan::Planned::data("/x".into(), text);
            Entry::planned(&file).unwrap()
        };
        for (name, mode) in [("same", 0o644), ("touched", 0o644), ("mode", 0o600)] {
            use std::os::unix::fs::PermissionsExt;
            let path = root.path().join(name);
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let expected = [("/same", "same"), ("/touched", "other"), ("/mode", "mode"), ("/gone", "gone")];
        let manifest = Manifest {
            version: "1".into(),
            commit: None,
            prefix: "/usr/local".into(),
            packaged: false,
            files: expected.map(|(path, text)| (path.into(), entry(text))).into(),
            folders: vec![],
        };
        let rows = files(root.path(), &manifest);
        let bad: Vec<_> = rows.iter().filter(|r| r.verdict == Verdict::Fail).map(|r| r.what.as_str()).collect();
        assert_eq!(bad, ["/gone", "/mode", "/touched"]);
        assert_eq!(rows.last().unwrap().found, "1 as they were installed");
    }
}
