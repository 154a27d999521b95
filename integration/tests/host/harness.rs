//! What the other tests rely on.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use banger_integration::host::{Bus, Host, Options, User, Who};
use banger_integration::{dist, eventually};

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_host_boots_with_either_bus_and_nothing_has_failed() {
    for (bus, program) in [(Bus::Daemon, "dbus-daemon"), (Bus::Broker, "dbus-broker")] {
        let begun = Instant::now();
        let host = Host::boot(Options { bus, ..Options::default() });
        println!("{program}: up in {} ms", begun.elapsed().as_millis());
        assert_eq!(host.failed_units(), Vec::<String>::new());
        let pid = host.ok([
            "busctl",
            "call",
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus",
            "GetConnectionUnixProcessID",
            "s",
            "org.freedesktop.systemd1",
        ]);
        assert_eq!(pid.trim(), "u 1");
        assert!(host.sh("cat /proc/[0-9]*/comm").lines().any(|comm| comm == program));
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_command_gets_its_words_and_its_stdin_and_gives_its_code_and_its_output() {
    let host = Host::boot(Options::default());
    let words = ["printf", "%s|", "$HOME ${HOME} $$ %n %%", "a  b", ""];
    assert_eq!(host.ok_as(Who::NoSession(User::Bob), words), "$HOME ${HOME} $$ %n %%|a  b||");
    let failed = host.run_as(Who::Seatless(User::Bob), ["sh", "-c", "echo out; echo err >&2; pwd; exit 7"]);
    assert_eq!((failed.code, failed.stdout.as_str(), failed.stderr.as_str()), (7, "out\n/home/bob\n", "err\n"));
    assert_eq!(host.errand(Who::Nobody, ["cat"]).stdin("hi").ok(), "hi");
    let mut running = host.start_as(
        Who::Active(User::Carol),
        ["sh", "-c", "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.05; done"],
    );
    running.says("up").signal(nix::sys::signal::Signal::SIGINT);
    let output = running.end();
    assert_eq!((output.code, output.stdout.as_str()), (3, "up\ncaught\n"));
}

/// What was kept of this test's host; taken away, since the test is a good one.
fn kept_journal() -> String {
    let name = std::thread::current().name().unwrap().replace("::", "-");
    let kept = dist().join("../failed-hosts").join(name);
    assert!(kept.join("console.txt").exists());
    let journal = std::fs::read_to_string(kept.join("journal.txt")).unwrap();
    std::fs::remove_dir_all(kept).unwrap();
    journal
}

/// Set for the run that is to be killed.
const VICTIM: &str = "BANGER_TEST_VICTIM";

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_run_that_is_killed_leaves_no_process_and_no_mount_and_the_next_one_removes_its_folder() {
    const SELF: &str =
        "harness::a_run_that_is_killed_leaves_no_process_and_no_mount_and_the_next_one_removes_its_folder";
    if std::env::var_os(VICTIM).is_some() {
        let host = Host::boot(Options::default());
        println!("folder {}", host.folder().display());
        host.ok(["sleep", "infinity"]);
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", SELF, "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(victim.stdout.take().unwrap()).lines();
    let folder = said.map(Result::unwrap).find_map(|line| line.strip_prefix("folder ").map(str::to_owned));
    let folder = folder.expect("it has booted a host");
    let processes = || {
        let found = Command::new("pgrep").args(["--full", "--count", "--", &folder]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    assert_ne!(processes(), 0);
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("its processes have ended", || processes() == 0);
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&folder));
    assert!(Path::new(&folder).exists());
    let next = Host::boot(Options::default());
    assert!(!Path::new(&folder).exists());
    // As of a test that took too long.
    let journal = kept_journal();
    assert!(journal.contains("Reached target multi-user.target"), "{journal}");
    let folder = next.folder().to_owned();
    drop(next);
    assert!(!folder.exists());
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_failed_test_keeps_the_journal_and_the_console() {
    let failed = std::panic::catch_unwind(|| {
        let host = Host::boot(Options::default());
        host.ok(["logger", "what happened before"]);
        panic!("on purpose");
    });
    assert!(failed.is_err());
    let journal = kept_journal();
    assert!(journal.contains("what happened before") && journal.contains("poweroff.target"), "{journal}");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn units_are_denied_what_their_files_deny_them() {
    let host = Host::boot(Options::default());
    let unit = |property: &str, words: &[&str]| {
        let run = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--property", property];
        host.run(run.iter().chain(words)).code == 0
    };
    let tun = ["sh", "-c", ": <>/dev/net/tun"];
    assert!(unit("DevicePolicy=auto", &tun) && !unit("DevicePolicy=closed", &tun));
    let send = ["python3", "-c", "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"];
    assert!(unit("IPAddressAllow=any", &send) && !unit("IPAddressDeny=any", &send));
    let links = ["ip", "link", "add", "br0", "type", "bridge"];
    assert!(!unit("CapabilityBoundingSet=", &links) && unit("CapabilityBoundingSet=CAP_NET_ADMIN", &links));
    let filter = ["unshare", "--net", "true"];
    assert!(unit("RestrictNamespaces=no", &filter) && !unit("RestrictNamespaces=yes", &filter));
    assert_eq!(host.sh("stat --format '%a %G' /dev/net/tun"), "666 root\n");
    if Path::new("/dev/kvm").exists() {
        assert_eq!(host.sh("stat --format '%a %G' /dev/kvm"), "660 kvm\n");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn hosts_side_by_side_know_nothing_of_each_other_and_leave_the_machine_as_it_was() {
    let hosts = [(); 3].map(|()| Host::boot(Options::default()));
    for host in &hosts {
        host.ok(["ip", "link", "add", "br0", "type", "bridge"]);
        host.ok(["systemd-run", "--quiet", "--unit=same.service", "sleep", "infinity"]);
    }
    for host in &hosts {
        let processes = host.sh("cat /sys/fs/cgroup/system.slice/same.service/cgroup.procs");
        assert_eq!(processes.lines().count(), 1, "{processes}");
    }
    let folders = hosts.each_ref().map(|host| host.folder().to_owned());
    drop(hosts);
    assert!(!Path::new("/sys/class/net/br0").exists());
    for folder in folders {
        let find = ["/run", "/sys/fs/cgroup", "-name", folder.file_name().unwrap().to_str().unwrap()];
        let found = Command::new("find").args(find).output().unwrap().stdout;
        assert_eq!(String::from_utf8(found).unwrap(), "");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!folder.exists() && !mounts.contains(folder.to_str().unwrap()), "{mounts}");
    }
}
