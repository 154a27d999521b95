//! The Debian package: comes, is used, is upgraded and goes as packages do.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use banger_integration::dist;
use banger_integration::host::{Host, Options, Who};

use crate::install::{contents, differences, rows};
use crate::vms::{ALICE, boot_id, machine};

/// Made of the build that is tested, and without an error of lintian's.
fn package(folder: &tempfile::TempDir) -> PathBuf {
    let file = folder.path().join("banger.deb");
    let run = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: 'make packages' installs it"));
        assert!(output.status.success(), "{command:?}: {output:?}");
    };
    let repo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    run(Command::new(repo.join("packaging/deb/build")).arg(dist()).arg(&file));
    run(Command::new("lintian").args(["--fail-on", "error", "--allow-root"]).arg(&file));
    file
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_package_is_installed_used_upgraded_under_a_machine_that_runs_and_purged_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let package = std::fs::read(package(&folder)).unwrap();
    let host = Host::boot(Options::default());
    let before = contents(&host);
    host.errand(Who::Root, ["tee", "/root/banger.deb"]).stdin(package).ok();
    let dpkg =
        |words: &[&str]| host.errand(Who::Root, [&["dpkg"], words].concat()).limit(Duration::from_secs(120)).run();
    let installs = || {
        let output = dpkg(&["--install", "/root/banger.deb"]);
        assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
        output.stderr
    };
    let said = installs();
    assert!(said.contains("sudo gpasswd --add USER banger"), "{said}");
    assert_eq!(rows(&host, "fail"), []);
    let refused = host.run(["banger", "system", "install"]);
    assert!(refused.code == 125 && refused.stderr.contains("is installed as a package"), "{}", refused.stderr);

    host.ok(["gpasswd", "--add", "alice", "banger"]);
    host.seed_images();
    machine(&host, "box");
    let booted = boot_id(&host, "box");
    let supervisor = || host.ok(["systemctl", "show", "--property=MainPID", "--value", "banger-vms"]);
    let old = supervisor();
    installs();
    assert_ne!(supervisor(), old, "the services are the new version's");
    assert_eq!(boot_id(&host, "box"), booted, "the machine runs on");

    let refused = dpkg(&["--remove", "banger"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("machines are running: box"), "{}", refused.stderr);
    assert_eq!(boot_id(&host, "box"), booted, "nothing has happened to it");
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
    let removed = dpkg(&["--remove", "banger"]);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(host.run(["which", "banger"]).code, 1);
    assert!(host.sh("ls /var/lib/banger").contains("images"), "what has come since stays");

    let purged = dpkg(&["--purge", "banger"]);
    assert_eq!(purged.code, 0, "{}", purged.stderr);
    let mut left = differences(&before, &contents(&host));
    // dpkg's own, and a group that others may be in.
    left.retain(|line| !line.starts_with("+/var/lib/dpkg/") && !line.starts_with("+kvm"));
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(host.failed_units(), Vec::<String>::new());
}
