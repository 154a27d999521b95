//! VMs as units: whose they are, what walls them in, what is left of them.

use std::time::Duration;

use banger_integration::host::{Host, Options, User, Who, units};
use banger_integration::{dist, eventually, within};

pub(crate) const ALICE: Who = Who::NoSession(User::Alice);

/// A host with banger, and the small image.
pub(crate) fn host() -> Host {
    let host = Host::boot(Options::default());
    host.install();
    host.seed_images();
    host
}

/// Makes a machine for Alice, which runs when this returns; its id.
pub(crate) fn machine(host: &Host, name: &str) -> String {
    let words = ["banger", "vm", "create", "--image", "debian-tiny", "--name", name];
    host.errand(ALICE, words).limit(Duration::from_secs(120)).ok();
    let shown = host.ok_as(ALICE, ["banger", "vm", "show", name, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown["id"].as_str().unwrap().to_owned()
}

pub(crate) fn boot_id(host: &Host, name: &str) -> String {
    host.ok_as(ALICE, ["banger", "vm", "exec", name, "--", "cat", "/proc/sys/kernel/random/boot_id"]).trim().to_owned()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn each_machine_is_a_user_of_its_own_without_any_right_and_nothing_is_left_of_it() {
    let host = host();
    let run = host.errand(ALICE, ["banger", "vm", "run", "--rm", "--image", "debian-tiny", "--", "sh", "-c", "exit 7"]);
    let run = run.limit(Duration::from_secs(120)).run();
    assert_eq!(run.code, 7, "{}", run.stderr);
    let ids = [machine(&host, "one"), machine(&host, "two")];
    let show = |id: &str, property: &str| {
        let unit = format!("banger-vm@{id}.service");
        host.ok(["systemctl", "show", "--value", "--property", property, &unit]).trim().to_owned()
    };
    let uids = ids.each_ref().map(|id| show(id, "UID"));
    assert_ne!(uids[0], uids[1]);
    for (id, uid) in ids.iter().zip(&uids) {
        let pids = host
            .sh(&format!("cat /sys/fs/cgroup/$(systemctl show --value -p ControlGroup banger-vm@{id})/cgroup.procs"));
        assert_eq!(pids.lines().count(), 2, "a keeper and its VMM: {pids}");
        for pid in pids.lines() {
            let status = host.sh(&format!("cat /proc/{pid}/status"));
            let has = |line: &str| assert!(status.lines().any(|l| l == line), "{line:?} in {status}");
            has(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
            has("CapBnd:\t0000000000000000");
            has("CapEff:\t0000000000000000");
            has("NoNewPrivs:\t1");
            has("Seccomp:\t2");
        }
        let memory = show(id, "MemoryMax").parse::<u64>().unwrap();
        assert!((1 << 30..2 << 30).contains(&memory), "the limit comes from the spec: {memory}");
    }
    host.ok_as(ALICE, ["banger", "vm", "delete", "one", "two"]);
    let units = || host.ok(["systemctl", "list-units", "--all", "--plain", "--no-legend", "banger-vm@*"]);
    eventually("no unit is left", || units().is_empty());
    let left = "find /run/systemd/system.control /run/banger/vm /var/lib/banger/vms/vms /var/lib/banger/storage/disks \
                -mindepth 1 -name '*[a-z0-9]' ! -path '*/.*' 2>/dev/null || true";
    assert_eq!(host.sh(left), "");
    for uid in uids {
        let owned = host.sh(&format!("find / -xdev -uid {uid} 2>/dev/null || true"));
        assert_eq!(owned, "", "files of a uid that somebody else will get");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_machine_whose_device_cannot_be_made_is_told_of_no_address_and_has_one_at_its_next_start() {
    let host = host();
    let id = machine(&host, "box");
    let shown = || {
        serde_json::from_str::<serde_json::Value>(&host.ok_as(ALICE, ["banger", "vm", "show", "box", "--json"]))
            .unwrap()
    };
    let address = shown()["address"].clone();
    host.ok_as(ALICE, ["banger", "vm", "stop", "box"]);
    // Somebody else's, of the same name: never taken, never removed.
    let device = id.parse::<banger_schemas::VmId>().unwrap().tap_name();
    host.sh(&format!("ip link delete {device} 2>/dev/null || true; ip tuntap add mode tap name {device}"));
    host.errand(ALICE, ["banger", "vm", "start", "box"]).limit(Duration::from_secs(60)).ok();
    let without = shown();
    assert_eq!(without["address"], "", "{without}");
    let note = without["notes"][0].as_str().unwrap();
    assert!(note.starts_with("no network: ") && note.contains(&device), "{note}");
    assert_eq!(without["notes"].as_array().unwrap().len(), 1, "the guest misses nothing: {without}");
    assert_eq!(host.ok_as(ALICE, ["banger", "vm", "exec", "box", "--", "ls", "/sys/class/net"]), "lo\n");
    host.ok_as(ALICE, ["banger", "vm", "stop", "box"]);
    host.ok(["ip", "link", "delete", &device]);
    host.errand(ALICE, ["banger", "vm", "start", "box"]).limit(Duration::from_secs(60)).ok();
    let with = shown();
    assert_eq!((&with["address"], with["notes"].as_array().unwrap().len()), (&address, 0), "{with}");
    host.ok_as(ALICE, ["banger", "vm", "delete", "box"]);
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn no_unit_is_more_exposed_than_two_of_ten() {
    let host = host();
    host.ok(["banger", "vm", "list"]);
    for unit in units().iter().map(String::as_str).chain(["banger-vm@abcdefghij.service"]) {
        let all = host.ok(["systemd-analyze", "security", "--no-pager", unit]);
        let line = all.lines().find(|line| line.contains("Overall exposure level")).unwrap().to_owned();
        let level: f32 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        println!("{unit}: {level}");
        assert!(level <= 2.0, "{all}");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_vmm_that_was_taken_over_finds_nothing_of_the_host() {
    let host = host();
    machine(&host, "victim");
    host.sh("install -d -o alice /home/alice/.ssh; echo secret >/home/alice/.ssh/id; mkfifo /run/listening");
    // A socket without a name in the file system, which only a network namespace keeps apart.
    let listen = "import socket,time; s=socket.socket(socket.AF_UNIX); s.bind('\\0banger-test-of-the-host'); s.listen(); \
                  print('listens',flush=True); time.sleep(600)";
    let mut listener = host.start_as(Who::Root, ["python3", "-c", listen]);
    listener.says("listens");
    let burglar = dist().join("../debug/examples/burglar");
    let program = std::fs::read(&burglar).expect("the burglar is built");
    host.errand(Who::Root, ["install", "--mode=0755", "/dev/stdin", "/usr/bin/burglar"]).stdin(program).ok();
    host.sh("mount --bind /usr/bin/burglar /usr/bin/qemu-system-x86_64");
    let words = ["banger", "vm", "create", "--image", "debian-tiny", "--name", "thief"];
    let creating = host.errand(ALICE, words).limit(Duration::from_secs(100)).start();
    let mut said = String::new();
    within(Duration::from_secs(60), "the burglar is done", || {
        said = host.run_as(ALICE, ["banger", "vm", "logs", "thief"]).stdout;
        said.lines().any(|line| line == "done")
    });
    drop(creating);
    println!("{said}");
    assert!(said.lines().any(|line| line == "own disk: works"), "{said}");
    let tried: Vec<&str> = said.lines().filter(|line| line.contains(": ")).collect();
    assert!(tried.len() > 40, "{said}");
    let open: Vec<_> = tried.iter().filter(|line| line.ends_with(": open")).collect();
    assert!(open.is_empty(), "{open:#?}");
    host.ok_as(ALICE, ["banger", "vm", "delete", "thief", "victim"]);
}

/// What the supervisor's user may have systemd do, and only with units of VMs.
const MAY: [&str; 5] = ["SetUnitProperties", "ResetFailedUnit", "StartUnit", "KillUnit", "StopUnit"];

/// Methods that only look, which everybody may ask.
const LOOKING: [&str; 6] = ["Get", "List", "Load", "Lookup", "Dump", "Subscribe"];

/// What systemd says about the arguments before it asks whether it may: it has done nothing.
const NOTHING_DONE: [&str; 5] = [
    "Job 9 does not exist",
    "No job queued for unit",
    "has not been referenced yet",
    "is not valid",
    "not available on non-delegated units",
];

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_supervisors_user_may_have_systemd_do_five_things_with_vms_and_nothing_else() {
    let host = host();
    // All of them run: of a unit that is not there systemd says so, before it asks whether it may.
    let ours = format!("banger-vm@{}.service", machine(&host, "box"));
    let units = [ours.as_str(), "systemd-journald.service", "banger-vms.service", "banger-vm@../x.service"];
    let listed = host.ok([
        "busctl",
        "introspect",
        "--no-pager",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    ]);
    let methods: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, "method", signature, ..] => Some((name.trim_start_matches('.'), *signature)),
                _ => None,
            }
        })
        .collect();
    assert!(methods.len() > 60, "{listed}");
    let ask = |unit: &str, method: &str, signature: &str| {
        let mut words = vec!["setpriv", "--reuid=banger-vms", "--regid=banger-vms", "--clear-groups", "busctl", "call"];
        words.extend([
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            method,
        ]);
        let arguments = arguments(method, signature, unit);
        words.extend(arguments.iter().map(String::as_str));
        host.run(words)
    };
    let refusals = ["Access denied", "authentication required", "Permission denied"];
    let refused = |said: &str| refusals.iter().any(|refusal| said.contains(refusal));
    let may = |method: &str, unit: &str| MAY.contains(&method) && unit == ours;
    let looks = |method: &str| LOOKING.iter().any(|looking| method.starts_with(looking));
    let (mut asked, mut let_in) = (0, Vec::new());
    for (method, signature) in methods.iter().filter(|(method, _)| !looks(method)) {
        for unit in units.iter().filter(|unit| !may(method, unit)) {
            let answer = ask(unit, method, signature);
            let nothing_done = NOTHING_DONE.iter().any(|said| answer.stderr.contains(said));
            // It is there to end a subscription of one's own.
            let own = *method == "Unsubscribe" && answer.stderr.contains("not subscribed");
            // Of a unit that cannot be, some say that it is not there.
            let none = unit.contains("..") && answer.stderr.contains("not loaded");
            if answer.code == 0 || !(refused(&answer.stderr) || nothing_done || own || none) {
                let_in.push(format!("{method}({unit}): {}", answer.stderr.trim()));
            }
            asked += 1;
        }
    }
    println!("{asked} tries");
    assert!(let_in.is_empty(), "{let_in:#?}");
    // Last, since what they may do ends the unit.
    for method in MAY {
        let (_, signature) = methods.iter().find(|(name, _)| *name == method).expect("systemd has it");
        let answer = ask(&ours, method, signature);
        // It may have gone by the time it is stopped.
        let done = if method == "StopUnit" { !refused(&answer.stderr) } else { answer.code == 0 };
        assert!(done, "{method}: {}", answer.stderr);
    }
}

/// Words for busctl: the signature, and for each part of it something that could do harm.
fn arguments(method: &str, signature: &str, unit: &str) -> Vec<String> {
    let text = match method {
        _ if method.contains("Mount") => "/usr",
        _ if method.contains("Attach") => "/",
        _ if method.contains("Preset") => "full",
        _ if method.contains("Kill") => "all",
        _ => "replace",
    };
    if signature == "-" {
        return vec![];
    }
    let mut words = vec![signature.to_owned()];
    let mut first = true;
    let mut rest = signature.chars().peekable();
    while let Some(kind) = rest.next() {
        match kind {
            's' if std::mem::take(&mut first) && !method.contains("Preset") => words.push(unit.to_owned()),
            's' => words.push(text.to_owned()),
            'o' => words.push("/".to_owned()),
            'b' => words.push("true".to_owned()),
            'h' => words.push("0".to_owned()),
            'i' | 'u' | 't' | 'x' | 'n' | 'q' | 'y' => words.push("9".to_owned()),
            'a' => {
                words.push("0".to_owned());
                skip_one(&mut rest);
            }
            _ => {}
        }
    }
    words
}

/// Goes past one complete type.
fn skip_one(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let mut depth = 0;
    for kind in rest.by_ref() {
        match kind {
            '(' | '{' => depth += 1,
            ')' | '}' => depth -= 1,
            'a' => continue,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}
