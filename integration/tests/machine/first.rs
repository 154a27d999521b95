//! The main job, as root and as an ordinary user.

use std::path::Path;
use std::process::Command;

use banger_integration::{Banger, Who};

fn repo(banger: &Banger) -> std::path::PathBuf {
    let repo = banger.home().join("repo");
    let script = "git init -q -b main repo && cd repo && git config user.email a@b && git config user.name n \
                  && printf 'test:\\n\\techo tested\\n' > Makefile && git add . && git commit -qm 'the first commit' && echo x > .env";
    let made = Command::new("sh").arg("-ec").arg(script).current_dir(banger.home()).status().unwrap();
    assert!(made.success());
    let owned = Command::new("chown").arg("-R").arg("--reference").arg(banger.home()).arg(&repo).status().unwrap();
    assert!(owned.success());
    repo
}

fn life_of_a_sandbox(who: Who) {
    let banger = Banger::new(who);
    let run = |script: &str| banger.run(["vm", "run", "--rm", "--image", "debian-tiny", "--", "sh", "-c", script]);
    let seven = run("echo out; echo err >&2; exit 7");
    assert_eq!((seven.code, seven.stdout.as_str()), (7, "out\n"));
    assert!(seven.stderr.starts_with("spec: 2 vCPU, 1 GiB memory, 8 GiB disk, image debian-tiny"), "{}", seven.stderr);
    assert!(seven.stderr.ends_with("err\n"), "{}", seven.stderr);
    let echoed = banger.feed(["vm", "run", "--rm", "--image", "debian-tiny", "--", "cat"], b"hi\n");
    assert_eq!((echoed.code, echoed.stdout.as_str()), (0, "hi\n"));
    assert!(banger.list().is_empty(), "--rm leaves nothing");

    assert_eq!(banger.ok(["vm", "run", "--image", "debian-tiny", "--name", "box", "-d"]), "box\n");
    let boot_id = banger.sh("box", "cat /proc/sys/kernel/random/boot_id");
    banger.kill_services();
    assert_eq!(banger.sh("box", "cat /proc/sys/kernel/random/boot_id"), boot_id, "the machine runs on");
    banger.sh("box", "echo kept > /root/file");
    banger.ok(["vm", "stop", "box"]);
    let stopped = banger.run(["vm", "exec", "box", "--", "true"]);
    assert_eq!(stopped.code, 125);
    assert!(stopped.stderr.contains("box is stopped: 'banger vm start box' starts it"), "{}", stopped.stderr);
    banger.ok(["vm", "start", "box"]);
    assert_eq!(banger.sh("box", "cat /root/file"), "kept\n");
    assert_ne!(banger.sh("box", "cat /proc/sys/kernel/random/boot_id"), boot_id);
    banger.ok(["vm", "delete", "box"]);
    assert!(banger.list().is_empty());
}

#[test]
fn the_life_of_a_sandbox() {
    life_of_a_sandbox(Who::Me);
}

#[test]
fn the_life_of_a_sandbox_of_an_ordinary_user() {
    match Who::all().contains(&Who::User) {
        true => life_of_a_sandbox(Who::User),
        false => println!("skipped: only root can become another user; this run is an ordinary user's already"),
    }
}

#[test]
fn a_repo_is_brought_along_with_its_history_and_without_what_git_does_not_track() {
    let banger = Banger::with_image(Who::Me, "debian-bookworm");
    let repo = repo(&banger);
    let listing = banger.ok([Path::new("vm"), Path::new("run"), &repo, Path::new("--dry-run")]);
    assert_eq!(listing, "Makefile\n");
    let script = "pwd; git log --format=%s; git status --porcelain; ls -A; make test";
    let output = banger.run(["vm", "run", "--rm", repo.to_str().unwrap(), "--", "sh", "-ec", script]);
    assert_eq!(
        output.stdout, "/root/repo\nthe first commit\n.git\nMakefile\necho tested\ntested\n",
        "{}",
        output.stderr
    );
    assert_eq!(output.code, 0);
}
