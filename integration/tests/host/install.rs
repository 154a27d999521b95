//! `banger system`: what it puts on a host, what it says of it, and that it takes all of it away again.

use banger_integration::Output;
use banger_integration::host::{Bus, Host, Options, User, Who};
use serde_json::Value;

const BANGER: &str = "/mnt/dist/bin/banger";
/// A unit of the kind that machines have; its keeper gives up by itself after a while.
const MACHINE: &str = "banger-vm@abcdefghij.service";

/// All files of the host but those that others write all the time, and all users and groups. sysusers and userdel keep
/// a lock and the version before.
pub(crate) fn contents(host: &Host) -> Vec<String> {
    let found = host.sh(r"
        find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /var/log -o -path /var/tmp -o -path /mnt \) -prune \
            -o \( -path /var/lib/systemd -o -path /root \) -prune -o -print \
            | grep -vE '^/(etc/(\.pwd\.lock|(passwd|group|shadow|gshadow|subuid|subgid)-)|run/.*)$'
        find /run/banger* 2>/dev/null || true
        cut -d: -f1,4 /etc/group /etc/passwd");
    let mut lines: Vec<String> = found.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What is in one and not in the other.
pub(crate) fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let only = |here: &[String], there: &[String], sign: &str| -> Vec<String> {
        here.iter().filter(|line| !there.contains(line)).map(|line| format!("{sign}{line}")).collect()
    };
    [only(before, after, "-"), only(after, before, "+")].concat()
}

fn system(host: &Host, words: &[&str]) -> Output {
    host.run([&[BANGER, "system"], words].concat())
}

fn ok(host: &Host, words: &[&str]) -> String {
    let output = system(host, words);
    assert_eq!(output.code, 0, "{words:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// The rows of `status` whose verdict is this one: what, and what was found.
pub(crate) fn rows(host: &Host, verdict: &str) -> Vec<(String, String)> {
    let output = host.run(["banger", "system", "status", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    assert_eq!(output.code == 0, rows.iter().all(|row| row["verdict"] != "fail"), "{}", output.stdout);
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().filter(|r| r["verdict"] == verdict).map(|r| (text(r, "what"), text(r, "found"))).collect()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn with_either_bus_it_comes_once_and_goes_without_a_trace() {
    for bus in [Bus::Daemon, Bus::Broker] {
        let host = Host::boot(Options { bus, ..Options::default() });
        let before = contents(&host);
        ok(&host, &["install", "--owner", "alice"]);
        assert!(host.ok(["id", "-nG", "alice"]).split_whitespace().any(|group| group == "banger"));
        for (name, unit) in [("Vms1", "banger-vms"), ("Network1", "banger-network"), ("Images1", "banger-images")] {
            let name = format!("dev.banger.{name}");
            host.ok([
                "busctl",
                "call",
                "org.freedesktop.DBus",
                "/",
                "org.freedesktop.DBus",
                "StartServiceByName",
                "su",
                &name,
                "0",
            ]);
            assert_eq!(host.ok(["systemctl", "is-active", unit]).trim(), "active");
        }
        assert_eq!(rows(&host, "fail"), []);
        assert_eq!(rows(&host, "warn"), []);
        // What an ordinary user cannot read is no damage.
        let asked = host.run_as(Who::NoSession(User::Bob), ["banger", "system", "status"]);
        assert_eq!(asked.code, 0, "{}{}", asked.stdout, asked.stderr);

        let state = |host: &Host| {
            host.sh("find /usr/local /etc /usr/share -xdev -newermt 2000-01-01 -printf '%p %i %T@ %C@\n' | grep banger | sort")
        };
        let installed = state(&host);
        ok(&host, &["install", "--owner", "alice"]);
        assert_eq!(state(&host), installed, "a second installation wrote something");

        ok(&host, &["uninstall"]);
        let left = differences(&before, &contents(&host));
        let expected = |line: &String| {
            line.starts_with("+/var/lib/banger") || line.starts_with("+banger") || line.starts_with("+kvm")
        };
        assert!(left.iter().all(expected), "{left:?}");
        let activatable = host.ok(["busctl", "list", "--activatable", "--no-legend"]);
        assert!(!activatable.contains("dev.banger."), "{activatable}");

        ok(&host, &["install", "--owner", "alice"]);
        ok(&host, &["uninstall", "--purge"]);
        assert_eq!(differences(&before, &contents(&host)), Vec::<String>::new());
        assert_eq!(host.failed_units(), Vec::<String>::new());
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_was_changed_since_is_named_and_put_right_by_the_next_installation() {
    let host = Host::boot(Options::default());
    let none = system(&host, &["status"]);
    assert_eq!((none.code, none.stdout.as_str()), (125, ""));
    assert!(none.stderr.contains("sudo banger system install"), "{}", none.stderr);
    ok(&host, &["install"]);
    host.sh("echo '# mine' >> /etc/dbus-1/system.d/dev.banger.Vms1.conf
             rm /usr/local/lib/banger/banger-netns
             chmod 0600 /usr/local/lib/systemd/system/banger.slice");
    let wrong: Vec<String> = rows(&host, "fail").into_iter().map(|(what, _)| what).collect();
    assert_eq!(
        wrong,
        [
            "/etc/dbus-1/system.d/dev.banger.Vms1.conf",
            "/usr/local/lib/banger/banger-netns",
            "/usr/local/lib/systemd/system/banger.slice",
        ]
    );
    ok(&host, &["install"]);
    assert_eq!(rows(&host, "fail"), []);

    host.ok(["systemctl", "start", "banger-storage"]);
    assert_eq!(rows(&host, "warn"), []);
    // Another build, put into place by hand.
    host.sh("sleep 1; cd /usr/local/lib/banger; cp banger-storage x; mv x banger-storage");
    let stale = rows(&host, "warn");
    assert!(
        matches!(stale.as_slice(), [(what, found)] if what == "banger-storage" && found.contains("before")),
        "{stale:?}"
    );
    let pid = || host.ok(["systemctl", "show", "--property=MainPID", "--value", "banger-storage"]);
    let old = pid();
    ok(&host, &["restart"]);
    assert_ne!(pid(), old);
    assert_eq!(rows(&host, "warn"), []);
    assert_eq!(host.run(["systemctl", "is-active", "banger-images"]).stdout.trim(), "inactive");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn an_installation_that_fails_leaves_the_host_as_it_was() {
    let host = Host::boot(Options::default());
    let before = contents(&host);
    let actions = "/usr/share/polkit-1/actions";
    host.sh(&format!("mount --bind {actions} {actions}; mount -o remount,bind,ro {actions}"));
    let failed = system(&host, &["install", "--owner", "alice"]);
    assert_eq!(failed.code, 125);
    assert!(failed.stderr.contains(actions) && failed.stderr.contains("Read-only"), "{}", failed.stderr);
    host.ok(["umount", actions]);
    assert_eq!(differences(&before, &contents(&host)), Vec::<String>::new());

    // When all files are there already: what was installed before is there again, and runs.
    ok(&host, &["install"]);
    host.ok(["systemctl", "start", "banger-storage"]);
    host.sh("echo '# mine' >> /usr/local/lib/systemd/system/banger-dns.service");
    let hashes = "find /usr/local /etc/dbus-1 /usr/share/polkit-1 /etc/polkit-1 -type f -exec sha256sum {} + | sort";
    let before = host.sh(hashes);
    host.ok(["mount", "--bind", "/bin/false", "/usr/bin/systemd-tmpfiles"]);
    let failed = system(&host, &["install"]);
    assert_eq!(failed.code, 125);
    assert!(
        failed.stderr.contains("systemd-tmpfiles") && failed.stderr.contains("nothing was changed"),
        "{}",
        failed.stderr
    );
    assert_eq!(host.sh(hashes), before);
    assert_eq!(host.ok(["systemctl", "is-active", "banger-storage"]).trim(), "active");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn only_root_installs_and_machines_that_run_are_not_uninstalled_under_their_owners() {
    let host = Host::boot(Options::default());
    let refused = host.run_as(Who::Active(User::Alice), [BANGER, "system", "install", "--owner", "alice"]);
    assert_eq!(refused.code, 125);
    assert!(
        refused.stderr.contains("hint: sudo /mnt/dist/bin/banger system install --owner alice"),
        "{}",
        refused.stderr
    );
    let unknown = system(&host, &["install", "--owner", "mallory"]);
    assert_eq!((unknown.code, unknown.stderr.contains("no user mallory")), (125, true), "{}", unknown.stderr);

    ok(&host, &["install"]);
    host.ok(["systemctl", "start", MACHINE]);
    let refused = system(&host, &["uninstall"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("abcdefghij") && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(host.ok(["systemctl", "is-active", MACHINE]).trim(), "active");
    ok(&host, &["uninstall", "--force"]);
    assert_ne!(host.run(["systemctl", "is-active", MACHINE]).code, 0);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn another_prefix_is_seen_by_the_services_and_by_machines_and_moves_with_the_next_installation() {
    let host = Host::boot(Options::default());
    let before = contents(&host);
    ok(&host, &["install", "--prefix", "/opt/banger"]);
    host.ok(["systemctl", "start", "banger-storage", MACHINE]);
    assert_eq!(host.ok(["systemctl", "is-active", MACHINE]).trim(), "active");
    ok(&host, &["install"]);
    assert_eq!(host.run(["ls", "/opt/banger"]).code, 2, "the files of the former prefix are still there");
    assert_eq!(rows(&host, "fail"), []);
    let exe = host.sh("readlink /proc/$(systemctl show --property=MainPID --value banger-storage)/exe");
    assert_eq!(exe.trim(), "/usr/local/lib/banger/banger-storage");
    ok(&host, &["uninstall", "--purge", "--force"]);
    assert_eq!(differences(&before, &contents(&host)), Vec::<String>::new());
}
