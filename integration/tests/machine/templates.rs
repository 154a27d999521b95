//! Machines that go on from a template: alike in nothing that matters, and never worse off than by a boot.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use banger_bus::sparse;
use banger_integration::{Banger, Who, eventually, sample};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::twins;

const RUN: [&str; 5] = ["vm", "run", "--rm", "--image", "debian-tiny"];

fn with_templates() -> Banger {
    Banger::new(Who::Me).linger(600).env("BANGER_TEMPLATES", "on")
}

fn templates(banger: &Banger) -> Vec<Value> {
    serde_json::from_str(&banger.ok(["template", "list", "--json"])).unwrap()
}

/// Boots a machine of this kind, and waits for its template. Where it is kept.
fn made(banger: &Banger, kind: &[&str]) -> PathBuf {
    let before: BTreeSet<String> = templates(banger).iter().map(|row| row["name"].to_string()).collect();
    banger.ok([&RUN[..], kind, &["--", "true"]].concat());
    let new = || templates(banger).into_iter().find(|row| !before.contains(&row["name"].to_string()));
    eventually("a template is made", || new().is_some());
    banger.state().join("templates").join(new().unwrap()["name"].as_str().unwrap())
}

/// How a machine was started, and why so.
fn started(banger: &Banger, name: &str) -> (String, String) {
    let shown = banger.show(name);
    let text = |field: &str| shown[field].as_str().unwrap().to_owned();
    (text("started"), text("started_reason"))
}

/// Whether some bytes are in a sparse file.
fn holds(path: &Path, wanted: &str) -> bool {
    let file = File::open(path).unwrap();
    let mut at = 0;
    while let Some(range) = sparse::data(&file, at).unwrap() {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        file.read_exact_at(&mut bytes, range.start).unwrap();
        if bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            return true;
        }
        at = range.end;
    }
    false
}

#[test]
fn five_machines_of_one_template_are_no_twins_and_it_holds_no_secret() {
    let banger = with_templates();
    // The machine that the template is made after, and of whose kind it is.
    let secret = "correct-horse-battery-staple-8841";
    let script = format!("echo {secret} >/root/file; echo {secret} >/etc/file; sleep 4");
    let env = format!("SECRET={secret}");
    let first = banger.start([&RUN[..], &["--env", &env, "--", "sh", "-c", &script]].concat());
    eventually("a template is made", || templates(&banger).len() == 1);
    assert_eq!(first.end().code, 0);
    let folder = banger.state().join("templates").join(templates(&banger)[0]["name"].as_str().unwrap());
    let files = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files().count(), 5);
    for file in files() {
        assert!(!holds(&file, secret), "{}", file.display());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400, "{}", file.display());
    }
    assert!(holds(&folder.join("ram"), "Linux version"), "the search finds what is there");

    let names = ["a", "b", "c", "d", "e"];
    let starts = names.map(|name| banger.start(["vm", "create", "--image", "debian-tiny", "--name", name]));
    for start in starts {
        let end = start.end();
        assert_eq!(end.code, 0, "{}", end.stderr);
    }
    let facts = "cat /etc/machine-id /proc/sys/kernel/random/boot_id /etc/hostname /sys/class/net/eth*/address; \
                 for i in 1 2; do head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; done; \
                 cat /proc/sys/kernel/random/uuid";
    let mut seen = BTreeSet::new();
    for name in names {
        assert_eq!(started(&banger, name), ("template".into(), String::new()), "{name}");
        let said = banger.sh(name, facts);
        let shown = banger.show(name);
        let told = ["address", "ssh_host_key"].map(|fact| shown[fact].as_str().unwrap().to_owned());
        let all: Vec<String> = said.lines().map(str::to_owned).chain(told).collect();
        assert_eq!(all.len(), 9, "{said}");
        assert_eq!(all[2], name);
        for fact in all {
            assert!(seen.insert(fact.clone()), "{name} is another's twin: {fact}");
        }
    }
    twins::number_their_bytes_alike_in_nothing(&banger, &names);
    let off = names.map(|name| clock_is_off(&banger, name));
    println!("clocks are off by {off:?}");

    // The boot that they have behind them is theirs to read, as in their kernels' logs.
    assert!(banger.ok(["vm", "logs", "b"]).starts_with("[    0.000000] Linux version"));

    // What they have in memory is theirs, whatever becomes of the template.
    banger.sh("a", "echo kept >/root/file");
    assert_eq!(banger.ok(["template", "prune"]), "1 removed\n");
    assert!(templates(&banger).is_empty() && !folder.exists());
    for name in names {
        banger.sh(name, "find /usr -type f | head -300 | xargs cat >/dev/null");
    }
    banger.ok(["vm", "stop", "a"]);
    let said = banger.ok(["vm", "logs", "a"]);
    assert!(said.starts_with("[    0.000000] Linux version") && said.contains("reboot: "), "{said}");
    banger.ok(["vm", "start", "a"]);
    assert_eq!(started(&banger, "a"), ("boot".into(), "its disks have been used".into()));
    assert_eq!(banger.sh("a", "cat /root/file; dmesg | grep -ci 'ext4.*error' || true"), "kept\n0\n");
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "f", "--cold"]);
    assert_eq!(started(&banger, "f"), ("boot".into(), "asked for".into()));
    banger.ok([&["vm", "delete", "f"], &names[..]].concat());
    banger.has_nothing_left();
}

/// By how much at most, as far as two looks at the host's clock around one at the guest's tell.
fn clock_is_off(banger: &Banger, name: &str) -> Duration {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let looks = (0..5).map(|_| {
        let before = now();
        let guest = banger.sh(name, "date +%s.%N");
        let after = now();
        let guest = Duration::from_secs_f64(guest.trim().parse().unwrap());
        before.saturating_sub(guest).max(guest.saturating_sub(after))
    });
    let off = looks.max().unwrap();
    assert!(off < Duration::from_millis(10), "{name} is off by {off:?}");
    off
}

#[test]
fn with_a_template_that_is_no_good_a_machine_boots() {
    let banger = with_templates();
    let folder = made(&banger, &[]);
    let (copy, other) = (banger.home().join("copy"), banger.home().join("other"));
    let put = |from: &Path, to: &Path| {
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
        assert!(copied.unwrap().success());
    };
    put(&folder, &copy);
    put(&made(&banger, &["--vcpu", "1"]), &other);
    type Harm<'a> = Box<dyn Fn(&Path) + 'a>;
    let flip = |file: &'static str| -> Harm<'_> { Box::new(move |folder| flip_a_byte(&folder.join(file))) };
    let manifest = |change: fn(&mut Value)| -> Harm<'_> { Box::new(move |folder| edit(folder, change)) };
    // Another guest's part, which is whole: only the VMM, or the guest, can tell that it does not fit.
    let foreign = |part: &'static str| -> Harm<'_> {
        let other = other.clone();
        Box::new(move |folder| {
            fs::remove_file(folder.join(part)).unwrap();
            put(&other.join(part), &folder.join(part));
            let theirs = read(&other)[part].clone();
            edit(folder, |manifest| manifest[part] = theirs.clone());
        })
    };
    let harms: Vec<(&str, &str, Harm<'_>)> = vec![
        ("memory with a flipped byte", "damaged", flip("ram")),
        ("memory that is cut", "damaged", Box::new(|folder| cut(&folder.join("ram")))),
        ("devices with a flipped byte", "damaged", flip("devices")),
        ("a system disk with a flipped byte", "damaged", flip("system.ext4")),
        ("a work disk with a flipped byte", "damaged", flip("work.ext4")),
        ("a manifest that is none", "damaged", Box::new(|folder| rewrite(&folder.join("manifest.json"), b"{"))),
        ("another QEMU's", "damaged", manifest(|m| m["key"]["vmm"]["size"] = 1.into())),
        (
            "a clock that is off by one in a hundred",
            "time-stamp counter",
            manifest(|m| {
                let khz = m["origin"]["tsc_khz"].as_u64().unwrap();
                m["origin"]["tsc_khz"] = (khz + khz / 100).into();
            }),
        ),
        // By QEMU, or by a guest that is never heard: it depends on what stands where the devices look.
        ("another guest's devices", "did not go on|the migration failed", foreign("devices")),
        ("another guest's memory", "", foreign("ram")),
        (
            "a link to elsewhere",
            "damaged",
            Box::new(|folder| {
                fs::remove_file(folder.join("ram")).unwrap();
                std::os::unix::fs::symlink(copy.join("ram"), folder.join("ram")).unwrap();
            }),
        ),
    ];
    for (what, why, harm) in sample("bad templates", 8, harms) {
        banger.kill_services();
        fs::remove_dir_all(banger.state().join("templates")).unwrap();
        fs::create_dir(banger.state().join("templates")).unwrap();
        fs::set_permissions(banger.state().join("templates"), Permissions::from_mode(0o700)).unwrap();
        put(&copy, &folder);
        harm(&folder);
        banger.boot("box");
        let (way, reason) = started(&banger, "box");
        println!("{what}: {reason}");
        assert_eq!(way, "boot", "{what}");
        let told = why.split('|').any(|why| reason.contains(why));
        assert!(told && !reason.is_empty(), "{what}: {reason}");
        assert_eq!(banger.sh("box", "echo here"), "here\n", "{what}");
        let log = fs::read_to_string(banger.state().join("banger.log")).unwrap();
        assert!(log.contains("a template is removed") || log.contains("no template, and removed"), "{what}");
        banger.ok(["vm", "delete", "box"]);
    }
    // The whole one is as good as ever.
    banger.kill_services();
    drop(fs::remove_dir_all(&folder));
    put(&copy, &folder);
    banger.boot("box");
    assert_eq!(started(&banger, "box").0, "template");
    // A byte of a disk is seen while the service runs, too.
    flip_a_byte(&folder.join("work.ext4"));
    banger.boot("more");
    assert_eq!(started(&banger, "more").0, "boot");
    banger.ok(["vm", "delete", "box", "more"]);
    banger.has_nothing_left();
}

#[test]
fn a_machine_that_was_made_from_a_template_boots_when_that_is_gone() {
    let banger = with_templates();
    made(&banger, &[]);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "box", "--no-start"]);
    banger.ok(["template", "prune"]);
    banger.ok(["vm", "start", "box"]);
    let (way, reason) = started(&banger, "box");
    assert_eq!((way.as_str(), reason.as_str()), ("boot", "there is no template of its kind yet"));
    assert_eq!(banger.sh("box", "cat /etc/hostname"), "box\n");
    banger.ok(["vm", "delete", "box"]);
    banger.has_nothing_left();
}

/// Of the steps at which the services can be killed while a template is made, a run takes about this many.
const FAULTS: u64 = 6;

#[test]
fn killed_at_any_step_of_making_one_the_services_leave_all_of_it_or_nothing() {
    let banger = with_templates();
    let folder = banger.state().join("templates");
    let there = || {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name() != ".making").count()
    };
    // New services, which write down their steps (`bus/src/fault.rs`) up to a template, or are killed at this one.
    let log = banger.home().join("steps");
    let make = |at: Option<usize>| -> Vec<String> {
        banger.stop_services();
        drop(fs::remove_file(&log));
        let mut run = banger.command([&RUN[..], &["--", "true"]].concat());
        run.env("BANGER_FAULT_LOG", &log).envs(at.map(|at| ("BANGER_FAULT_AT", at.to_string())));
        assert!(run.output().unwrap().status.success() || at.is_some());
        // Where the client had to start other services, those have no reason to make one.
        let begun = Instant::now();
        while there() == 0 && banger.services().is_some() && begun.elapsed() < Duration::from_secs(8) {
            pause(Duration::from_millis(20));
        }
        pause(Duration::from_millis(200));
        banger.stop_services();
        fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect()
    };
    let steps = make(None);
    let begins = steps.iter().position(|step| step.ends_with("before template")).unwrap();
    assert!(steps.len() > begins + 40, "{steps:#?}");
    let mut killed = 0;
    for at in sample("steps of making a template", FAULTS, (begins + 1..=steps.len()).collect()) {
        banger.ok(["template", "prune"]);
        let step = &steps[at - 1];
        // Not each run takes the same number.
        killed += usize::from(make(Some(at)).iter().any(|taken| taken.starts_with(&format!("{at} "))));
        // The maker's client was the process that has died.
        eventually(&format!("killed at {step:?}, no keeper is left"), || banger.on_the_host().is_empty());
        banger.ok(["vm", "list"]);
        eventually(&format!("killed at {step:?}, what it held is given back"), || banger.on_the_disk().is_empty());
        let whole = templates(&banger).len();
        assert_eq!(there(), whole, "killed at {step:?}, half a template is seen");
        println!("killed at {step:?}: {whole} templates");
    }
    assert!(killed > 0, "nobody was killed");
    banger.ok(["template", "prune"]);
    // Two of a kind at once have one made.
    let both = [0, 1].map(|_| banger.start([&RUN[..], &["--", "true"]].concat()));
    both.into_iter().for_each(|run| assert_eq!(run.end().code, 0));
    eventually("a template is made", || templates(&banger).len() == 1);
    banger.has_nothing_left();
    let log = fs::read_to_string(banger.state().join("banger.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_maker_that_never_gets_ready_is_ended_and_nobody_waits_for_it() {
    let banger = with_templates().env("BANGER_TEMPLATE_DEADLINE_SECONDS", "3");
    banger.ok([&RUN[..], &["--", "true"]].concat());
    eventually("the maker's VMM has started", || !banger.vmms().is_empty());
    for vmm in banger.vmms() {
        kill(vmm, Signal::SIGSTOP).unwrap();
        let nice = fs::read_to_string(format!("/proc/{vmm}/stat")).unwrap();
        assert_eq!(nice.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("19"), "it stands back: {nice}");
    }
    // Meanwhile machines come and go.
    banger.ok([&RUN[..], &["--", "true"]].concat());
    eventually("the maker is gone", || banger.on_the_host().is_empty() && banger.on_the_disk().is_empty());
    assert!(templates(&banger).is_empty());
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "box"]);
    assert_eq!(started(&banger, "box").0, "boot");
    banger.ok(["vm", "delete", "box"]);
    // What does not work is not tried again and again.
    pause(Duration::from_millis(500));
    assert!(banger.vmms().is_empty());
    banger.has_nothing_left();
}

#[test]
fn a_template_that_the_disk_has_no_room_for_is_none() {
    if Who::all().len() == 1 {
        return println!("skipped: only root can mount a small disk");
    }
    // Out of room, QEMU stops the guest.
    let banger = with_templates().env("BANGER_TEMPLATE_DEADLINE_SECONDS", "5");
    let state = banger.state();
    let banger = banger.mounting(&format!("mount -t tmpfs -o size=2600M,mode=700 small {}", state.display()));
    banger.ok([&RUN[..], &["--memory", "256", "--", "true"]].concat());
    // There was room when it began.
    eventually("the maker has begun", || !banger.vmms().is_empty());
    banger.in_its_state("cat /dev/zero >ballast 2>&1 || :");
    eventually("the maker is gone", || banger.vmms().is_empty());
    assert!(templates(&banger).is_empty());
    // What goes meanwhile is no mistake.
    let half_made = || banger.in_its_state("find templates disks -mindepth 1 ! -name '.*' 2>/dev/null || :");
    eventually("nothing half made is left", || half_made().is_empty());
    banger.in_its_state("rm ballast");
    banger.ok(["vm", "create", "--image", "debian-tiny", "--memory", "256", "--name", "box"]);
    assert_eq!(started(&banger, "box").0, "boot");
    banger.ok(["vm", "delete", "box"]);
}

#[test]
fn without_memory_no_template_is_made_and_no_machine_comes_up() {
    if Who::all().len() == 1 {
        return println!("skipped: only root can say how much memory there is");
    }
    let banger = with_templates();
    let says = banger.home().join("meminfo");
    let has = |mib: u64| fs::write(&says, format!("MemAvailable: {} kB\n", mib << 10)).unwrap();
    has(300);
    let banger = banger.mounting(&format!("mount --bind {} /proc/meminfo", says.display()));
    let complaint = banger.fails([&RUN[..], &["--", "true"]].concat());
    assert!(complaint.contains("300 MiB of memory left") && complaint.contains("stop one first"), "{complaint}");
    banger.ok(["vm", "delete", banger.list()[0]["name"].as_str().unwrap()]);
    banger.has_nothing_left();
    has(600);
    banger.ok([&RUN[..], &["--", "true"]].concat());
    let told = || fs::read_to_string(banger.state().join("banger.log")).unwrap().contains("short of memory");
    eventually("it is told why there is no template", told);
    assert!(banger.vmms().is_empty() && templates(&banger).is_empty());
    has(8000);
    banger.ok([&RUN[..], &["--", "true"]].concat());
    eventually("a template is made", || templates(&banger).len() == 1);
}

#[test]
fn starts_and_deletes_leave_the_services_as_they_were() {
    let banger = with_templates();
    made(&banger, &[]);
    let run = || drop(banger.ok([&RUN[..], &["--", "true"]].concat()));
    for _ in 0..5 {
        run();
    }
    let services = banger.services().unwrap();
    let open = || fs::read_dir(format!("/proc/{services}/fd")).unwrap().count();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{services}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let (files, memory) = (open(), resident());
    let times = sample("starts", 20, vec![(); 100]).len();
    for _ in 0..times {
        run();
    }
    eventually("as many files are open as before", || open() <= files);
    println!("{times} times: {files} files, {memory} KiB before and {} KiB after", resident());
    assert!(resident() < memory + 4096, "{} KiB, after {memory}", resident());
    banger.has_nothing_left();
}

fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "a moment in a maker's life is chosen by time")]
    std::thread::sleep(time);
}

fn writable(path: &Path) -> File {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
    file
}

/// Of the second megabyte, or of what is there.
fn flip_a_byte(path: &Path) {
    let file = writable(path);
    let at = file.metadata().unwrap().len().min(2 << 20) - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn cut(path: &Path) {
    let file = writable(path);
    file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
}

fn rewrite(path: &Path, bytes: &[u8]) {
    let file = writable(path);
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn read(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

fn edit(folder: &Path, change: impl Fn(&mut Value)) {
    let mut manifest = read(folder);
    change(&mut manifest);
    rewrite(&folder.join("manifest.json"), &serde_json::to_vec(&manifest).unwrap());
}
