//! A host of the test's own: a network namespace that this test's thread is in, with a network outside of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use banger_bus::Records;
use banger_network::host::bridge::{Bridge, Config};
use banger_network::plan::Plan;
use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use crate::pretend::Place;

/// The host, and who is outside: at 192.0.2.1, while the host is 192.0.2.2.
pub(crate) struct Scratch {
    pub(crate) bridge: Bridge,
    pub(crate) records: Records,
    pub(crate) outside: Namespace,
    pub(crate) inside: Namespace,
    _folder: TempDir,
}

/// A network namespace, as long as this lives.
pub(crate) struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut process = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo made; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        Namespace(process)
    }
}

impl Place for Namespace {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn namespaces(&self) -> &'static [&'static str] {
        &["-n"]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Scratch {
    /// One, with this thread in it; `None`, which is printed, for who may not.
    pub(crate) fn new(config: Config) -> Option<Self> {
        Scratch::with(Plan::of_the_host(), config)
    }

    /// The same with another network for guests.
    pub(crate) fn with(plan: Plan, config: Config) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: only root has a host's network to try");
            return None;
        }
        let (inside, outside) = (Namespace::new(), Namespace::new());
        inside.run(&format!(
            "ip link set lo up && ip link add eth0 type veth peer name eth0 netns {} && \
             ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.1",
            outside.pid()
        ));
        outside.run(
            "ip link set lo up && ip addr add 192.0.2.1/24 dev eth0 && ip addr add 10.9.9.9/32 dev lo && \
             ip addr add 198.51.100.1/32 dev lo && ip addr add 169.254.169.254/32 dev lo && ip link set eth0 up",
        );
        let namespace = File::open(format!("/proc/{}/ns/net", inside.pid())).unwrap();
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("network.redb")).unwrap();
        let bridge = Bridge::new(plan, config, records.clone());
        Some(Scratch { bridge, records, outside, inside, _folder: folder })
    }

    /// A second service on the same records, as after a restart.
    pub(crate) fn restarted(&self, config: Config) -> Bridge {
        Bridge::new(Plan::of_the_host(), config, self.records.clone())
    }

    pub(crate) fn run(&self, command: &str) -> String {
        self.inside.run(command)
    }
}
