//! Whether a machine reaches the outside is its owner's to say, while it runs, and stays so.

use std::time::Duration;

use banger_integration::host::{Host, User, Who};
use banger_integration::within;

use crate::outside::{Outside, is_reached_from};
use crate::vms::{ALICE, host, machine};

fn set(host: &Host, switch: &str) {
    assert_eq!(host.ok_as(ALICE, ["banger", "vm", "set", "box", switch]), "box set\n");
    let shown = host.ok_as(ALICE, ["banger", "vm", "show", "box", "--json"]);
    assert!(shown.contains(&format!("\"nat\": {}", switch == "--nat")), "{shown}");
}

/// What was said holds in the machine's next life, and in the network service's.
fn stays(host: &Host, reached: bool) {
    host.ok(["systemctl", "restart", "banger-network"]);
    let holds = || is_reached_from(host, "box") == reached;
    within(Duration::from_secs(5), "it is so after a restart of the service", holds);
    host.ok_as(ALICE, ["banger", "vm", "stop", "box"]);
    host.errand(ALICE, ["banger", "vm", "start", "box"]).limit(Duration::from_secs(120)).ok();
    assert_eq!(is_reached_from(host, "box"), reached, "after a start");
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn nat_is_switched_while_a_machine_runs_and_stays_so() {
    let host = host();
    let _outside = Outside::of(&host);
    machine(&host, "box");
    assert!(is_reached_from(&host, "box"));
    set(&host, "--no-nat");
    assert!(!is_reached_from(&host, "box"));
    stays(&host, false);
    // Another's machine is not there, and so is no switch of it.
    let refused = host.run_as(Who::NoSession(User::Bob), ["banger", "vm", "set", "box", "--nat"]);
    assert!(refused.code != 0 && !is_reached_from(&host, "box"), "{refused:?}");
    set(&host, "--nat");
    assert!(is_reached_from(&host, "box"));
    stays(&host, true);
    // One that does not run is asked too, and one that is made so from the start.
    host.ok_as(ALICE, ["banger", "vm", "stop", "box"]);
    set(&host, "--no-nat");
    host.errand(ALICE, ["banger", "vm", "start", "box"]).limit(Duration::from_secs(120)).ok();
    assert!(!is_reached_from(&host, "box"));
    let words = ["banger", "vm", "create", "--image", "debian-tiny", "--name", "shut", "--no-nat"];
    host.errand(ALICE, words).limit(Duration::from_secs(120)).ok();
    assert!(!is_reached_from(&host, "shut"));
    let words = ["banger", "vm", "create", "--image", "debian-tiny", "--name", "none", "--no-network", "--no-start"];
    host.ok_as(ALICE, words);
    let refused = host.run_as(ALICE, ["banger", "vm", "set", "none", "--nat"]);
    assert!(refused.code != 0 && refused.stderr.contains("none has no network"), "{refused:?}");
    let neither = host.run_as(ALICE, ["banger", "vm", "set", "box"]);
    assert!(neither.code == 2 && neither.stderr.contains("--no-nat"), "{neither:?}");
}
