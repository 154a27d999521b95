//! A repo that is brought along: names as bytes, nothing of what git does not track, nothing from outside the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use banger_integration::{Banger, Who};
use nix::sys::signal::Signal;

const REPO: &str = "git init -q -b main . && git config user.email a@b && git config user.name n";

/// A folder in a banger's home, owned by its user, with what a script makes there.
fn folder(banger: &Banger, name: &str, script: &str) -> PathBuf {
    let folder = banger.home().join(name);
    std::fs::create_dir(&folder).unwrap();
    let made = Command::new("sh").arg("-ec").arg(script).current_dir(&folder).status().unwrap();
    assert!(made.success(), "{script}");
    let mut owned = Command::new("chown");
    assert!(owned.arg("-R").arg("--reference").arg(banger.home()).arg(&folder).status().unwrap().success());
    folder
}

fn run<'a>(path: &'a Path, more: &'a [&'a str]) -> Vec<&'a std::ffi::OsStr> {
    let words = ["vm", "run", "--rm", "--image", "debian-tiny"].into_iter().map(AsRef::as_ref);
    words.chain([path.as_os_str()]).chain(more.iter().map(AsRef::as_ref)).collect()
}

#[test]
fn what_is_no_repo_is_refused_before_anything_is_made() {
    let banger = Banger::bare(Who::Me);
    let plain = folder(&banger, "plain", "echo x > file");
    let complaint = banger.fails(run(&plain, &["--dry-run"]));
    assert!(complaint.contains("plain is in no git repo"), "{complaint}");
    assert!(complaint.contains("hint: 'git init && git add .'"), "{complaint}");
    assert!(banger.fails(run(&plain.join("file"), &["--dry-run"])).contains("file is no folder"));
    assert!(banger.fails(run(&plain.join("absent"), &["--dry-run"])).contains("cannot use"));
    let script = format!(
        "{REPO} && git init -q sub && git -C sub config user.email a@b && git -C sub config user.name n \
        && git -C sub commit -q --allow-empty -m x && git -c protocol.file.allow=always submodule --quiet add ./sub vendored"
    );
    let complaint = banger.fails(run(&folder(&banger, "super", &script), &["--dry-run"]));
    assert!(complaint.contains("the repo has submodules (vendored"), "{complaint}");
    assert!(banger.services().is_none(), "no service was needed to know");

    for path in [plain, banger.home().join("super")] {
        banger.fails(run(&path, &["--", "true"]));
    }
    banger.has_nothing_left();
}

#[test]
fn a_dry_run_lists_what_would_come_along_and_makes_nothing() {
    let banger = Banger::bare(Who::Me);
    let script = format!(
        "{REPO}; echo a > a; echo 's p' > 's p'; printf x > 'new\nline'; printf '*.o\n.env\n' > .gitignore; \
        git add .; git commit -qm c; echo s > .env; echo o > x.o; echo n > notes"
    );
    let repo = folder(&banger, "repo", &script);
    assert_eq!(banger.ok(run(&repo, &["--dry-run"])), ".gitignore\na\n\"new\\nline\"\ns p\n");
    let all = banger.ok(run(&repo, &["--include-untracked", "--dry-run"]));
    assert_eq!(all, ".gitignore\na\n\"new\\nline\"\nnotes\ns p\n", "what git ignores stays at home even then");
    assert!(banger.services().is_none(), "no service is needed for it");
}

/// Prints a tree as `path\0content\0`, links as `path\0-> target\0`.
const SHOW: &str = r#"find . -name .git -prune -o ! -type d -printf '%P\0' | LC_ALL=C sort -z | perl -0ne '
    chomp; print "$_\0";
    if (-l) { print "-> ", readlink } else { local $/; open my $f, "<", $_ or die "$_: $!"; print <$f> }
    print "\0"'"#;

fn a_tree_arrives_as_it_is(who: Who) {
    let banger = Banger::new(who);
    std::fs::write(banger.home().join("secret"), "TOP SECRET").unwrap();
    let script = format!(
        "{REPO}; printf 1 > -n; printf 2 > 's p'; printf 3 > 'new\nline'; printf 4 > \"$(printf '\\377\\376')\"; \
        mkdir -p d/e; printf '\\000\\001\\377' > d/e/binary; printf '#!/bin/sh\necho ran\n' > tool; chmod +x tool; \
        ln -s ../secret out; ln -s /etc/hostname abs; ln -s d/e/binary in; ln -s nowhere broken; : > empty; printf old > changed; \
        printf gone > gone; git add -A; git commit -qm c; printf new > changed; rm gone; printf s > .env; printf n > notes"
    );
    let repo = folder(&banger, "a repo", &script);
    let (output, bytes) = banger.start(run(&repo, &["--", "sh", "-c", SHOW])).end_with_bytes();
    assert_eq!(output.code, 0, "{}", output.stderr);
    let parts: Vec<&[u8]> = bytes.strip_suffix(b"\0").unwrap().split(|b| *b == 0).collect();
    // The binary has a NUL of its own.
    let expected: [&[u8]; 25] = [
        b"-n",
        b"1",
        b"abs",
        b"-> /etc/hostname",
        b"broken",
        b"-> nowhere",
        b"changed",
        b"new",
        b"d/e/binary",
        b"",
        b"\x01\xff",
        b"empty",
        b"",
        b"in",
        b"-> d/e/binary",
        b"new\nline",
        b"3",
        b"out",
        b"-> ../secret",
        b"s p",
        b"2",
        b"tool",
        b"#!/bin/sh\necho ran\n",
        b"\xff\xfe",
        b"4",
    ];
    let text = |parts: &[&[u8]]| parts.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(text(&parts), text(&expected));
    let seen = banger.ok(run(
        &repo,
        &["--include-untracked", "--", "sh", "-c", "pwd; ./tool; cat notes .env; cat out || echo dangles"],
    ));
    assert_eq!(seen, "/root/a repo\nran\nnsdangles\n");
    banger.has_nothing_left();
}

#[test]
fn a_tree_arrives_as_it_is_byte_by_byte() {
    Who::all().into_iter().for_each(a_tree_arrives_as_it_is);
}

#[test]
fn ctrl_c_while_files_are_brought_leaves_nothing() {
    let banger = Banger::new(Who::Me);
    let script = format!("{REPO}; head -c 400M /dev/zero > big; git add .gitignore 2>/dev/null || :; git add -N big");
    let repo = folder(&banger, "repo", &script);
    let client = banger.start(run(&repo, &["--", "sleep", "1000"]));
    client.says("bringing 1 files").signal(Signal::SIGINT);
    let output = client.end();
    assert_eq!(output.code, 130, "{}", output.stderr);
    banger.has_nothing_left();
}
