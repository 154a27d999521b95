//! Damage: what is cut short, overwritten, full or missing is told in words, hangs nothing and takes nothing along.

use std::path::{Path, PathBuf};
use std::process::Command;

use banger_integration::{Banger, Who, eventually, within};

const CREATE: [&str; 5] = ["vm", "create", "--image", "debian-tiny", "--name"];

/// All files of a name below a folder.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let output = Command::new("find").arg(folder).args(["-name", name]).output().unwrap();
    let found: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect();
    assert!(!found.is_empty(), "there is a {name}");
    found
}

/// Puts a file in another one's place that has only its first part; gives back how to undo that.
fn cut_short(path: PathBuf) -> impl FnOnce() {
    let whole = path.with_extension("whole");
    std::fs::rename(&path, &whole).unwrap();
    std::fs::copy(&whole, &path).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    move || std::fs::rename(&whole, &path).unwrap()
}

#[test]
fn a_kernel_an_image_or_modules_cut_short_are_an_error_with_a_name() {
    let banger = Banger::new(Who::Me).own_catalog();
    banger.boot("other");
    for (name, file) in [("kernel", "vmlinux"), ("image", "image.erofs"), ("modules", "modules.cpio*")] {
        let undo: Vec<_> = files(banger.catalog(), file).into_iter().map(cut_short).collect();
        for made in files(&banger.catalog().join("initramfs"), "*-*") {
            std::fs::remove_file(made).unwrap();
        }
        let complaint = banger.fails(CREATE.iter().chain(&[name]));
        println!("{name}: {complaint}");
        assert!(complaint.contains("damaged") || complaint.contains("corrupt"), "{name}: {complaint}");
        assert_eq!(banger.show(name)["state"], "failed", "it is shown with its reason");
        assert_eq!(banger.sh("other", "ls / | grep -c ."), banger.sh("other", "ls / | wc -l"), "others run on");
        undo.into_iter().for_each(|undo| undo());
        banger.ok(["vm", "start", name]);
        assert_eq!(banger.sh(name, "hostname"), format!("{name}\n"), "whole again, it boots");
        banger.ok(["vm", "delete", name]);
    }
}

#[test]
fn records_that_are_garbage_are_named_and_never_replaced() {
    let banger = Banger::new(Who::Me);
    banger.boot("box");
    for name in ["vms.redb", "network.redb", "images.redb"] {
        banger.stop_services();
        let (records, kept) = (banger.state().join(name), banger.state().join("kept"));
        std::fs::rename(&records, &kept).unwrap();
        std::fs::write(&records, b"garbage ".repeat(4096)).unwrap();
        for arguments in [vec!["vm", "list"], vec!["vm", "exec", "box", "--", "true"]] {
            let complaint = banger.fails(&arguments);
            assert!(complaint.contains(&format!("{name} cannot be read")), "{complaint}");
            assert!(complaint.contains("move it away to start afresh"), "{complaint}");
        }
        let doctor = banger.run(["doctor"]);
        assert_eq!(doctor.code, 125);
        assert!(doctor.stdout.contains(name), "{}", doctor.stdout);
        assert_eq!(std::fs::read(&records).unwrap(), b"garbage ".repeat(4096), "left as it was");
        std::fs::rename(&kept, &records).unwrap();
        assert_eq!(banger.sh("box", "hostname"), "box\n", "the machine ran on and is found again");
    }
}

#[test]
fn an_image_that_a_machine_stands_on_is_not_deleted() {
    let banger = Banger::new(Who::Me).own_catalog();
    banger.ok(CREATE.iter().chain(&["box", "--no-start"]));
    let id = banger.show("box")["id"].as_str().unwrap().to_owned();
    for verb in [["image", "delete", "debian-tiny"], ["kernel", "delete", "debian-bookworm-cloud"]] {
        let complaint = banger.fails(verb);
        assert!(complaint.contains(&id) || complaint.contains("box"), "it says who: {complaint}");
        banger.kill_services();
        banger.fails(verb);
    }
    banger.ok(["vm", "start", "box"]);
    banger.fails(["image", "delete", "debian-tiny"]);
    banger.ok(["vm", "delete", "box"]);
    banger.ok(["image", "delete", "debian-tiny"]);
    assert_eq!(banger.ok(["image", "list", "--json"]).matches("debian-tiny").count(), 0);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_made() {
    if Who::all().len() == 1 {
        return println!("skipped: only root can mount a small disk");
    }
    let banger = Banger::new(Who::Me);
    let state = banger.state();
    let banger = banger.mounting(&format!("mount -t tmpfs -o size=1100M,mode=700 small {}", state.display()));
    banger.ok(CREATE.iter().chain(&["first"]));
    banger.ok(["vm", "stop", "first"]);
    let listing = || banger.in_its_state("ls disks vms");
    let before = listing();

    banger.in_its_state("fallocate -l 200M ballast");
    let complaint = banger.fails(CREATE.iter().chain(&["second"]));
    assert!(complaint.contains("MiB are free in"), "{complaint}");
    assert!(complaint.contains("make room there first"), "{complaint}");
    assert_eq!(banger.list().len(), 1);
    assert_eq!(listing(), before, "nothing is half made");

    // Now to the last byte: nothing new, but what is there is listed, and deleting it makes room.
    banger.in_its_state("cat /dev/zero >ballast 2>&1 || :");
    let complaint = banger.fails(CREATE.iter().chain(&["third"]));
    assert!(complaint.contains("the disk of") && complaint.contains("make room there first"), "{complaint}");
    assert_eq!(banger.list().len(), 1, "nothing is half made");
    banger.ok(["vm", "delete", "first"]);
    assert!(banger.list().is_empty());
    banger.in_its_state("rm ballast");
    banger.ok(CREATE.iter().chain(&["fourth"]));
    assert_eq!(banger.sh("fourth", "hostname"), "fourth\n", "with room again all is well");
}

#[test]
fn without_qemu_the_error_names_the_package() {
    if Who::all().len() == 1 {
        return println!("skipped: only root can hide a program");
    }
    let banger = Banger::new(Who::Me).mounting("mount --bind /dev/null /usr/bin/qemu-system-x86_64");
    let complaint = banger.fails(CREATE.iter().chain(&["box"]));
    assert!(
        complaint.contains("qemu-system-x86_64 is not installed: install the package qemu-system-x86"),
        "{complaint}"
    );
    banger.has_nothing_left();
    let doctor = banger.run(["doctor"]);
    assert_eq!(doctor.code, 125);
    let row = doctor.stdout.lines().find(|line| line.contains("qemu-system-x86_64")).unwrap();
    assert!(row.starts_with("fail") && row.contains("sudo apt install qemu-system-x86"), "{row}");
}

#[test]
fn a_build_that_is_killed_leaves_nothing_and_two_pulls_share_one() {
    let banger = Banger::bare(Who::Me);
    let catalog = banger.home().join("own");
    let banger = banger.env("BANGER_IMAGE_DIR", &catalog);
    let building = || std::fs::read_dir(catalog.join("images/tmp")).into_iter().flatten().count();
    let pull = banger.start(["image", "pull", "debian-tiny"]);
    eventually("a build is under way", || building() == 1);
    eventually("its tool runs", || banger.on_the_host_named("mmdebstrap") > 0);
    banger.kill_services();
    assert_eq!(pull.end().code, 125);
    within(std::time::Duration::from_secs(60), "its tools end too", || banger.on_the_host_named("mmdebstrap") == 0);
    assert_eq!(banger.ok(["image", "list", "--json"]), "[]\n");
    assert_eq!(building(), 0, "the next start sweeps");

    let pulls = [0, 1].map(|_| banger.start(["image", "pull", "debian-tiny"]));
    eventually("a build is under way", || building() > 0);
    let mut most = 0;
    let mut pulls = Vec::from(pulls);
    within(std::time::Duration::from_secs(400), "both pulls have ended", || {
        most = most.max(building());
        pulls.iter_mut().all(banger_integration::Running::has_ended)
    });
    assert_eq!(most, 1, "one build for both");
    let ended: Vec<_> = pulls.into_iter().map(banger_integration::Running::end).collect();
    assert!(ended.iter().all(|output| output.code == 0), "{ended:?}");
    assert_eq!(ended[0].stdout, ended[1].stdout);
    assert!(ended[0].stdout.starts_with("debian-tiny sha256:"), "{}", ended[0].stdout);
    assert_eq!(building(), 0);
}
