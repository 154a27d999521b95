//! Embedded mode: found or started by every command, once a user, and gone when nothing needs it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use banger_integration::{Banger, Output, Running, Who, eventually, within};

/// Lists machines with another runtime folder, or with what the environment says.
fn list_with(banger: &Banger, change: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    run_with(banger, &["vm", "list", "--json"], change)
}

fn run_with(banger: &Banger, words: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = banger.command(words);
    change(&mut command);
    Running::of(command).end()
}

#[test]
fn without_a_runtime_folder_a_checked_one_is_made() {
    let banger = Banger::bare(Who::Me);
    let temporary = banger.home().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let listed = list_with(&banger, |c| c.env_remove("BANGER_RUNTIME_DIR").env("TMPDIR", &temporary));
    assert_eq!((listed.code, listed.stdout.as_str()), (0, "[]\n"), "{}", listed.stderr);
    let made = temporary.join(format!("banger-{}", nix::unistd::getuid()));
    assert_eq!(std::fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
    assert!(made.join("bus").exists());
    // Another runtime folder with the same state: somebody logged in, and a job of theirs that did not.
    let begun = Instant::now();
    let refused = banger.fails(["vm", "list"]);
    assert!(refused.contains("in use by another banger"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it is said at once");
    banger.stop_services();
}

#[test]
fn settings_hold_from_the_next_start_and_a_mistake_in_them_is_told_with_its_line() {
    let banger = Banger::bare(Who::Me).env("XDG_CONFIG_HOME", "/nowhere");
    let folder = banger.home().join("config");
    let file = folder.join("banger/config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let doctor = || run_with(&banger, &["doctor"], |c| c.env("XDG_CONFIG_HOME", &folder));
    std::fs::write(&file, "# mine\nfirecraker_bin = '/usr/bin/true'\n").unwrap();
    let refused = list_with(&banger, |c| c.env("XDG_CONFIG_HOME", &folder));
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    let mistake =
        format!("{}, line 2: there is no setting 'firecraker_bin': did you mean 'firecracker_bin'?", file.display());
    assert!(refused.stderr.contains(&mistake), "{}", refused.stderr);
    assert!(doctor().stdout.contains(&mistake));
    std::fs::write(&file, "firecracker_bin = '/usr/bin/true'\n").unwrap();
    let told = doctor();
    let shows = |what: &str| told.stdout.contains(what);
    assert!(shows("/usr/bin/true") && shows(&file.display().to_string()), "{}", told.stdout);
    banger.stop_services();
}

#[test]
fn a_runtime_folder_too_long_for_a_socket_is_refused_with_the_cure() {
    let banger = Banger::bare(Who::Me);
    let long = banger.home().join("x".repeat(110));
    let refused = list_with(&banger, |c| c.env("BANGER_RUNTIME_DIR", &long));
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("too long for a socket"), "{}", refused.stderr);
    assert!(refused.stderr.contains("set XDG_RUNTIME_DIR to a shorter path"), "{}", refused.stderr);
    assert!(banger.services().is_none());
}

#[test]
fn a_runtime_folder_that_somebody_else_could_have_made_is_refused() {
    let banger = Banger::bare(Who::Me);
    let (real, link) = (banger.home().join("real"), banger.home().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let refused_at = |banger: &Banger, folder: &Path| {
        let refused = list_with(banger, |c| c.env("BANGER_RUNTIME_DIR", folder));
        assert_eq!(refused.code, 125, "{}", refused.stderr);
        let why = format!("{} is not a folder of yours", folder.display());
        assert!(refused.stderr.contains(&why), "{}", refused.stderr);
    };
    refused_at(&banger, &link);
    if Who::all().contains(&Who::User) {
        let user = Banger::bare(Who::User);
        let foreign = user.home().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o777)).unwrap();
        refused_at(&user, &foreign);
    } else {
        println!("skipped: only root can make a folder that is another user's");
    }
}

#[test]
fn a_stale_socket_and_lock_are_no_obstacle() {
    let banger = Banger::bare(Who::Me);
    let run = banger.home().join("run");
    drop(UnixListener::bind(run.join("bus")).unwrap());
    std::fs::write(run.join("lock"), "").unwrap();
    assert!(run.join("bus").exists(), "nobody listens there");
    assert!(banger.list().is_empty());
    banger.kill_services();
    assert!(banger.list().is_empty(), "and what a kill -9 leaves is stale too");
    banger.stop_services();
    assert!(!run.join("bus").exists(), "an orderly end leaves no socket");
}

#[test]
fn ten_commands_at_once_start_one_process() {
    for who in Who::all() {
        let banger = Banger::bare(who);
        let all: Vec<_> = (0..10).map(|_| banger.start(["vm", "list", "--json"])).collect();
        for one in all {
            let output = one.end();
            assert_eq!((output.code, output.stdout.as_str()), (0, "[]\n"), "{}", output.stderr);
        }
        eventually("those who came too late are gone", || banger.all_services().len() == 1);
        let log = std::fs::read_to_string(banger.state().join("banger.log")).unwrap();
        assert_eq!(log.matches("serving name=\"dev.banger.Vms1\"").count(), 1, "{log}");
    }
}

#[test]
fn the_process_ends_when_nothing_needs_it_and_not_before() {
    let banger = Banger::new(Who::Me).linger(1);
    banger.stop_services();
    banger.list();
    within(Duration::from_secs(8), "an idle process ends", || banger.services().is_none());

    banger.boot("box");
    let services = banger.services().unwrap();
    #[allow(clippy::disallowed_methods, reason = "nothing is to happen in this time")]
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(banger.services(), Some(services), "a machine that runs needs it");
    banger.ok(["vm", "stop", "box"]);
    within(Duration::from_secs(8), "a stopped machine does not", || banger.services().is_none());
    assert_eq!(banger.show("box")["state"], "stopped", "and is found again");
    banger.ok(["vm", "start", "box"]);
    assert_eq!(banger.sh("box", "hostname"), "box\n");
}

#[test]
fn the_bus_can_be_looked_at_with_ordinary_tools() {
    let banger = Banger::new(Who::Me);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "box", "--no-start"]);
    let id = banger.show("box")["id"].as_str().unwrap().to_owned();
    let busctl = |arguments: &[&str]| {
        let mut busctl = Command::new("busctl");
        busctl.arg(format!("--address={}", banger.bus())).args(["--no-pager", "--list"]).args(arguments);
        let output = busctl.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let tree = busctl(&["tree", "dev.banger.Vms1"]);
    let object = tree.lines().find(|line| line.ends_with(&id)).expect("the machine is an object");
    let methods = busctl(&["introspect", "dev.banger.Vms1", object.trim()]);
    for member in [".Start", ".Stop", ".Delete", ".Console", ".State", ".HostAddress"] {
        assert!(methods.lines().any(|line| line.starts_with(&format!("{member} "))), "{member}: {methods}");
    }
    let manager = busctl(&["introspect", "dev.banger.Vms1", "/dev/banger/Vms1"]);
    assert!(manager.contains(".Create ") && manager.contains(".Get "), "{manager}");
    for service in ["Dns1", "Images1", "Network1", "Sessions1", "Storage1"] {
        let path = format!("/dev/banger/{service}");
        assert!(busctl(&["introspect", &format!("dev.banger.{service}"), &path]).contains("method"), "{service}");
    }
}
