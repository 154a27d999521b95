//! The same as `tests/faults`, on a host, with machines that are real: a service dies at some step of a machine's life,
//! and dies there again each time that it comes so far. When that is over, everything is whole or gone.

use std::time::Duration;

use banger_integration::host::Host;
use banger_integration::{eventually, sample, within};

use crate::vms::{ALICE, host};

/// The four that work for a machine's life.
const SERVICES: [&str; 4] = ["network", "storage", "images", "vms"];
/// Of all steps, a run takes about this many.
const SAMPLE: u64 = 8;

const LIFE: [&str; 5] = [
    "vm create --image debian-tiny --name box --publish 8080:80",
    "vm exec box -- true",
    "vm stop box",
    "vm start box",
    "vm delete box",
];

fn live(host: &Host) -> Vec<String> {
    let each = LIFE.map(|line| {
        let words = ["timeout", "40", "banger"].into_iter().chain(line.split(' '));
        let output = host.errand(ALICE, words).run();
        format!("{line}: {} {}", output.code, output.stderr.trim())
    });
    each.to_vec()
}

/// The service with these variables, fresh.
fn restart(host: &Host, service: &str, variables: &str) {
    host.write(&format!("/run/systemd/system/banger-{service}.service.d/fault.conf"), variables);
    host.sh(&format!("rm -f /run/banger/{service}/steps; systemctl daemon-reload; systemctl reset-failed"));
    // One that dies while it starts is started again.
    host.run(["systemctl", "restart", &format!("banger-{service}")]);
}

fn steps(host: &Host, service: &str) -> u64 {
    let last = host.sh(&format!("tail -n 1 /run/banger/{service}/steps 2>/dev/null || true"));
    last.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn is_whole_or_gone(host: &Host, told: &str) {
    let list = || host.run_as(ALICE, ["banger", "vm", "list", "-a", "--json"]).stdout;
    within(Duration::from_secs(60), &format!("the machine is at rest; {told}"), || {
        let states = list();
        states.starts_with('[') && !["creating", "starting", "stopping", "deleting"].iter().any(|s| states.contains(s))
    });
    if list().contains("\"box\"") {
        host.errand(ALICE, ["banger", "vm", "delete", "box"]).ok();
    }
    let left = || {
        host.sh("systemctl list-units --all --plain --no-legend 'banger-vm@*'
                 ls /run/banger/vm /var/lib/banger/vms/vms
                 ls -A /var/lib/banger/storage/disks | grep -v '^\\.' || true
                 ip -o link | grep -o 'tap-[a-z0-9]*' || true
                 find /var/lib /run -xdev -uid +61183 -uid -65520
                 busctl call dev.banger.Network1 /dev/banger/Network1 dev.banger.Network1.Manager Holders | grep -v '^as 0' || true
                 busctl call dev.banger.Images1 /dev/banger/Images1 dev.banger.Images1.Manager Holders | grep -v '^as 0' || true")
    };
    within(Duration::from_secs(30), &format!("nothing is left; {told}"), || {
        let left = left();
        let of_machines = left.lines().filter(|line| !line.ends_with(':') && !line.is_empty()).count();
        if of_machines > 0 {
            println!("{left}");
        }
        of_machines == 0
    });
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_service_may_die_at_any_step_of_a_real_machines_life() {
    let host = host();
    let clean = live(&host);
    assert!(clean.iter().all(|line| line.contains(": 0 ")), "{clean:#?}");
    let mut faults = Vec::new();
    for service in SERVICES {
        restart(&host, service, &format!("[Service]\nEnvironment=BANGER_FAULT_LOG=/run/banger/{service}/steps\n"));
        eventually("it has started", || host.run_as(ALICE, ["banger", "vm", "list"]).code == 0);
        let first = steps(&host, service);
        live(&host);
        let last = steps(&host, service);
        println!("{service}: {first} to {last}");
        faults.extend((first + 1..=last).map(|at| (service, at)));
        restart(&host, service, "");
    }
    assert!(faults.len() > 50, "{faults:?}");
    for (service, at) in sample("faults", SAMPLE, faults) {
        let variables =
            format!("[Service]\nEnvironment=BANGER_FAULT_LOG=/run/banger/{service}/steps BANGER_FAULT_AT={at}\n");
        restart(&host, service, &variables);
        let said = live(&host);
        let died = steps(&host, service);
        restart(&host, service, "");
        let told = format!("{service} killed at {at}: {said:#?}");
        println!("{told}, {died} steps in its last life");
        is_whole_or_gone(&host, &told);
    }
}
