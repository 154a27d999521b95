//! A host on a machine of its own has what a container has not.

use std::time::{Duration, Instant};

use banger_integration::host::{Host, User, Who};

/// Makes a VM: KVM_CREATE_VM of linux/kvm.h.
const CREATE_VM: &str = "import fcntl, os; os.close(fcntl.ioctl(os.open('/dev/kvm', os.O_RDWR), 0xAE01, 0))";

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_machine_of_its_own_has_kvm_and_holds_limits() {
    let begun = Instant::now();
    let host = Host::boot_machine();
    println!("up in {} ms", begun.elapsed().as_millis());
    assert_eq!(host.failed_units(), Vec::<String>::new());
    host.ok(["test", "-x", "/mnt/dist/bin/banger"]);
    host.ok(["python3", "-c", CREATE_VM]);
    assert_eq!(host.sh("stat --format '%a %G' /dev/kvm"), "660 kvm\n");
    let limited = |property: &str, words: &[&str]| {
        let run = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--property", property];
        host.run(run.iter().chain(words)).code == 0
    };
    let memory = ["python3", "-c", "bytearray(128 << 20)"];
    assert!(limited("MemoryMax=256M", &memory) && !limited("MemoryMax=32M", &memory));
    let tasks = ["sh", "-c", "sleep 0.1 & sleep 0.1 & wait"];
    assert!(limited("TasksMax=16", &tasks) && !limited("TasksMax=2", &tasks));
    let words = ["printf", "%s|", "$HOME $$ 'quoted' \"twice\"", "a  b", "", "new\nline"];
    assert_eq!(host.ok_as(Who::Seatless(User::Bob), words), "$HOME $$ 'quoted' \"twice\"|a  b||new\nline|");
    assert_eq!(host.errand(Who::NoSession(User::Bob), ["cat"]).stdin("hi").ok(), "hi");
    let begun = Instant::now();
    drop(host);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
