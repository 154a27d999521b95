//! What a guest finds when it wakes, and what it keeps.

use std::time::{SystemTime, UNIX_EPOCH};

use banger_integration::{Banger, Who};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
const MAC: &str = "cat /sys/class/net/eth0/address";
const ADDRESS: &str = "ip -4 -o address show eth0 | awk '{print $4}'";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn two_machines_differ_and_stay_themselves(who: Who) {
    let banger = Banger::new(who);
    banger.boot("one");
    banger.boot("two");
    let of = |vm: &str| ["hostname", "cat /etc/machine-id", BOOT_ID, MAC, ADDRESS].map(|script| banger.sh(vm, script));
    let (one, two) = (of("one"), of("two"));
    assert_eq!((one[0].as_str(), two[0].as_str()), ("one\n", "two\n"));
    for (mine, theirs) in one.iter().zip(&two) {
        assert_ne!(mine, theirs);
    }
    assert!(one[1].trim().len() == 32 && one[1].trim().bytes().all(|b| b.is_ascii_hexdigit()), "{}", one[1]);
    let shown = banger.show("one");
    assert_eq!(one[4].split('/').next(), shown["address"].as_str());
    assert_eq!(one[2].trim(), shown["boot_id"]);
    assert!(banger.sh("one", "cat /etc/resolv.conf").starts_with("nameserver "));
    assert_eq!(banger.sh("one", "getent hosts one | awk '{print $2}'"), "one\n", "it knows its own name");

    let before = now();
    let clock: f64 = banger.sh("one", "date +%s.%N").trim().parse().unwrap();
    assert!(clock > before - 1.0 && clock < now() + 1.0, "its clock is {} s off", clock - before);

    banger.sh("one", "ls -A /root; echo kept > /root/kept; echo kept > /etc/kept");
    banger.kill_services();
    let adopted = of("one");
    assert_eq!(adopted, one, "a death of the services changes nothing");
    banger.ok(["vm", "stop", "one"]);
    banger.ok(["vm", "start", "one"]);
    let again = of("one");
    assert_eq!((&again[0], &again[1], &again[3], &again[4]), (&one[0], &one[1], &one[3], &one[4]));
    assert_ne!(again[2], one[2], "another boot of the same machine");
    assert_eq!(banger.sh("one", "cat /root/kept /etc/kept"), "kept\nkept\n");
}

#[test]
fn two_machines_differ_in_all_that_names_them_and_each_stays_itself() {
    Who::all().into_iter().for_each(two_machines_differ_and_stay_themselves);
}

#[test]
fn an_orderly_stop_loses_nothing_and_an_end_in_the_guest_is_told() {
    let banger = Banger::new(Who::Me);
    banger.boot("box");
    let sum = banger.sh(
        "box",
        "head -c 20M /dev/urandom > /root/data; head -c 5M /root/data > /var/data; cd /; sha256sum root/data var/data",
    );
    banger.ok(["vm", "stop", "box"]);
    assert_eq!(banger.show("box")["state"], "stopped");
    banger.ok(["vm", "start", "box"]);
    assert_eq!(banger.sh("box", "cd /; sha256sum root/data var/data"), sum);
    assert_eq!(banger.sh("box", "mount | grep -c ' /root '"), "1\n", "the work disk is at /root");

    // Not by way of banger: from within.
    banger.run(["vm", "exec", "box", "--", "sh", "-c", "sync; echo o > /proc/sysrq-trigger"]);
    banger_integration::eventually("the end is noticed", || banger.show("box")["state"] != "running");
    banger_integration::eventually("and told", || !banger.show("box")["detail"].as_str().unwrap().is_empty());
    println!("{}", banger.show("box")["detail"]);
    banger.ok(["vm", "start", "box"]);
    assert_eq!(banger.sh("box", "cd /; sha256sum root/data var/data"), sum);
}

const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

#[test]
fn the_agent_lives_through_the_start_of_systemd() {
    let banger = Banger::with_image(Who::Me, "debian-bookworm");
    banger.ok(["vm", "create", "--name", "box"]);
    assert_eq!(banger.sh("box", "cat /proc/1/comm"), "systemd\n");
    let state = banger.run(["vm", "exec", "box", "--", "systemctl", "is-system-running", "--wait"]);
    let failed = banger.sh("box", "systemctl --failed --no-legend --plain");
    assert_eq!((state.stdout.as_str(), failed.as_str()), ("running\n", ""), "no unit failed");
    let modules = banger.sh("box", "cat /sys/kernel/security/lsm");
    assert_eq!(modules, "lockdown,capability,landlock,yama", "none that lacks a policy");
    let ssh_answers = || banger.sh("box", "ssh-keyscan -t ed25519 localhost 2>/dev/null").trim_end().to_owned();
    let known = format!("localhost {}", banger.show("box")["ssh_host_key"].as_str().unwrap());
    assert_eq!(ssh_answers(), known, "it is known by the key that banger tells");
    assert_eq!(
        banger.sh("box", "ls /etc/ssh/ssh_host_*; stat -c %a:%U /etc/ssh/ssh_host_*"),
        format!("{HOST_KEY}\n600:root\n")
    );
    let on_demand =
        "systemctl is-active dbus systemd-logind; loginctl list-sessions; systemctl is-active dbus systemd-logind";
    assert_eq!(banger.sh("box", on_demand), "inactive\ninactive\nNo sessions.\nactive\nactive\n", "there for who asks");
    assert_eq!(banger.sh("box", "systemctl daemon-reexec; systemctl daemon-reload; echo still here"), "still here\n");
    assert_eq!(banger.sh("box", "hostnamectl hostname; stat -c %a:%U /root"), "box\n700:root\n");
    banger.sh("box", "echo written > /root/just-before");
    banger.ok(["vm", "stop", "box"]);
    banger.ok(["vm", "start", "box"]);
    assert_eq!(banger.sh("box", "cat /root/just-before"), "written\n");
    assert_eq!(ssh_answers(), known, "and the next time too");
    // The image's own content of /root.
    let image = banger.sh("box", "ls -A /etc/skel | sort; ls -A /root | grep -c '^.profile$'");
    assert!(image.ends_with("\n1\n"), "{image}");
}
