//! The administrator's file of settings.

use std::time::Duration;

use banger_integration::eventually;
use banger_integration::host::{Host, Options};

use crate::names;
use crate::outside::{self, Outside, is_reached_from};
use crate::vms::{self, ALICE};

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

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn machines_get_the_network_that_is_set_when_none_of_them_runs() {
    let host = vms::host();
    let _outside = Outside::of(&host);
    // Their makers are in the network too, for a moment.
    host.sh("mkdir -p /etc/banger");
    host.write(FILE, "templates = false\n");
    vms::machine(&host, "stopped");
    host.ok_as(ALICE, ["banger", "vm", "stop", "stopped"]);
    vms::machine(&host, "runs");
    let bridges = || host.sh("ip -brief -4 address show type bridge").split_whitespace().collect::<Vec<_>>().join(" ");
    let doctor = || host.run_as(ALICE, ["banger", "doctor"]).stdout;
    let address = |name: &str| host.ok_as(ALICE, ["banger", "vm", "exec", name, "--", "hostname", "-I"]);
    let restart = || host.ok(["systemctl", "restart", "banger-network", "banger-dns"]);
    let before = bridges();
    assert!(before.starts_with("br-banger UP 172.16.0.1/24"), "{before}");

    // Nobody loses a network for it, and doctor says what is awaited.
    host.sh("mkdir -p /etc/banger");
    host.write(
        FILE,
        "cidr = '10.77.0.0/24'\nbridge_ip = '10.77.0.9'\nbridge_name = 'br7'\ndefault_dns = '192.0.2.1'\n",
    );
    restart();
    let awaits = "machines' network is still 172.16.0.0/24 at br-banger, and not 10.77.0.0/24 at br7 as is set, since 1 \
                  machines run in it";
    eventually("doctor says so", || doctor().contains(awaits));
    assert_eq!((bridges(), is_reached_from(&host, "runs")), (before, true));

    host.ok_as(ALICE, ["banger", "vm", "stop", "runs"]);
    restart();
    let _server = ["runs", "stopped"].map(|name| {
        host.errand(ALICE, ["banger", "vm", "start", name]).limit(Duration::from_secs(120)).ok();
        assert!(address(name).starts_with("10.77.0."), "{}", address(name));
        assert!(is_reached_from(&host, name));
        let asks = ["banger", "vm", "exec", name, "--", "getent", "ahostsv4", "example.org"];
        assert!(host.ok_as(ALICE, asks).starts_with(outside::ADDRESS), "whom the settings say, not whom the host asks");
        let server = names::serve(&host, name);
        let url = format!("http://{name}.vm:3000");
        eventually("it is reached by its name", || {
            host.run(["curl", "--silent", "--max-time", "5", &url]).stdout == "hello\n"
        });
        server
    });
    assert!(bridges().starts_with("br7 UP 10.77.0.9/24") && !bridges().contains("br-banger"), "{}", bridges());
    assert!(!doctor().contains("is still"), "{}", doctor());

    // A mistake wants no other network, and neither does another start.
    host.ok_as(ALICE, ["banger", "vm", "stop", "runs", "stopped"]);
    host.write(FILE, "cidr = '10.78.0.0/24'\nbridge = 'br8'\n");
    restart();
    host.errand(ALICE, ["banger", "vm", "start", "runs"]).limit(Duration::from_secs(120)).ok();
    assert!(address("runs").starts_with("10.77.0."), "{}", address("runs"));

    // One with room for a single machine is none for two.
    host.ok_as(ALICE, ["banger", "vm", "stop", "runs"]);
    host.write(FILE, "cidr = '10.78.0.0/30'\n");
    restart();
    host.errand(ALICE, ["banger", "vm", "start", "runs"]).limit(Duration::from_secs(120)).ok();
    assert!(doctor().contains("there are 2 machines and the other has room for 1"), "{}", doctor());

    host.ok_as(ALICE, ["banger", "vm", "stop", "runs"]);
    host.ok(["banger", "system", "uninstall", "--purge"]);
    assert_eq!(bridges(), "");
}
