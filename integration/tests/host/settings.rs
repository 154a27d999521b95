//! The administrator's file of settings.

use banger_integration::host::{Host, Options};

use crate::vms::ALICE;

const FILE: &str = "/etc/banger/config.toml";

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn services_take_up_the_hosts_settings_and_go_on_without_those_that_are_wrong() {
    let host = Host::boot(Options::default());
    host.install();
    let doctor = || host.run_as(ALICE, ["banger", "doctor"]).stdout;
    assert!(doctor().contains(&format!("no {FILE}")));
    let write = |text: &str| {
        host.sh("mkdir -p /etc/banger");
        host.write(FILE, text);
        host.ok(["banger", "system", "restart"]);
    };
    // No Firecracker, and told apart from none that is installed.
    write("firecracker_bin = '/usr/bin/false'\ntap_pool_size = 5\n");
    let told = doctor();
    assert!(told.contains("/usr/bin/false"), "{told}");
    write("firecracker_bin = '/usr/bin/false'\ntap_pool = 5\n");
    let told = doctor();
    let mistake = format!("{FILE}, line 2: there is no setting 'tap_pool': did you mean 'tap_pool_size'?");
    assert!(told.contains(&mistake) && !told.contains("/usr/bin/false"), "{told}");
    let journal = host.sh("journalctl --output=cat --unit=banger-vms");
    assert!(journal.contains(&mistake), "{journal}");
    // Nobody is without machines for it.
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    host.ok(["banger", "system", "uninstall", "--purge"]);
    assert!(host.sh(&format!("cat {FILE}")).contains("tap_pool"), "it is not ours to remove");
}
