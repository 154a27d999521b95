//! Templates of a host: made by one user's machine, used by all, and nobody's to change.

use banger_integration::eventually;
use banger_integration::host::{Host, User, Who};
use serde_json::Value;

use crate::vms::{ALICE, host};

const BOB: Who = Who::Active(User::Bob);
const KIND: [&str; 2] = ["--image", "debian-tiny"];

/// Tries to write, to cut and to map for writing what root itself has opened for both.
const HARM: &str = r#"
import glob, mmap, os, sys
opened = [p for p in glob.glob(f'/proc/{sys.argv[1]}/fd/*') if 'memfd:banger-template' in os.readlink(p)]
for path in opened:
    fd = os.open(path, os.O_RDWR)
    harms = [lambda: os.pwrite(fd, b'x', 0), lambda: os.ftruncate(fd, 0), lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED)]
    for harm in harms:
        try:
            harm()
        except PermissionError:
            continue
        sys.exit(f'{path} can be changed')
    assert any(os.pread(fd, 1 << 20, at << 20).strip(b'\0') for at in range(64)), 'it holds a guest'
print(len(opened), 'sealed')
"#;

fn create(host: &Host, who: Who, name: &str) -> Value {
    host.ok_as(who, [&["banger", "vm", "create", "--name", name], &KIND[..]].concat());
    host.ok_as(who, ["banger", "vm", "show", name, "--json"]).parse().unwrap()
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_template_serves_everybody_and_nobody_can_change_it() {
    let host = host();
    let template = || host.ok_as(ALICE, ["banger", "template", "list", "--json"]);
    assert_eq!(create(&host, ALICE, "first")["started"], "boot");
    eventually("a template is made", || template().contains("debian-tiny"));
    assert_eq!(host.sh("stat --format '%a %U' /var/lib/banger/vms/templates"), "700 banger-vms\n");
    let files = host.sh("stat --format '%a %U' /var/lib/banger/vms/templates/*/* | sort -u");
    assert_eq!(files, "400 banger-vms\n");

    let box_ = create(&host, BOB, "bobs");
    assert_eq!(box_["started"], "template", "{box_}");
    let unit = format!("banger-vm@{}.service", box_["id"].as_str().unwrap());
    let keeper = host.ok(["systemctl", "show", "--value", "--property=MainPID", &unit]);
    let vmm = host.ok(["pgrep", "--parent", keeper.trim()]);
    // As it was given, and as the VMM has opened it.
    assert_eq!(host.ok(["python3", "-c", HARM, vmm.trim()]), "2 sealed\n");

    // A supervisor that has just come reads it again, and disturbs nobody.
    let boot = || host.ok_as(BOB, ["banger", "vm", "exec", "bobs", "--", "cat", "/proc/sys/kernel/random/boot_id"]);
    let before = boot();
    host.ok(["systemctl", "restart", "banger-vms.service"]);
    assert_eq!(create(&host, ALICE, "second")["started"], "template");
    assert_eq!(boot(), before);

    // What all share is not one user's to remove.
    let refused = host.run_as(BOB, ["banger", "--no-ask", "template", "prune"]);
    assert!(refused.code == 125 && refused.stderr.contains("prune-templates"), "{}", refused.stderr);
    assert_eq!(host.ok(["banger", "template", "prune"]), "1 removed\n");
    assert_eq!(boot(), before);
    for (who, name) in [(ALICE, "first"), (ALICE, "second"), (BOB, "bobs")] {
        host.ok_as(who, ["banger", "vm", "delete", name]);
    }
    let units = || host.ok(["systemctl", "list-units", "--all", "--plain", "--no-legend", "banger-vm@*"]);
    eventually("no unit is left", || units().is_empty());
}
