//! The life of a host: booted, asked, powered off.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::unistd::{Pid, geteuid};

use super::container::Container;
use super::emulator::Emulator;
use super::folder::Folder;
use super::{Errand, Running, Who, base, evidence, patiently};
use crate::{Output, leftovers, within};

/// How a host is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub bus: Bus,
    /// Whether ufw, firewalld and Docker are installed, none of which runs.
    pub firewalls: bool,
}

/// The program that is the system bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Bus {
    /// Debian's default.
    #[default]
    Daemon,
    /// Fedora's and Arch's.
    Broker,
}

/// A host. Dropped, it is powered off, and fails the test if something of it is left on the machine; if the test has
/// failed, its journal and console are kept.
#[derive(Debug)]
pub struct Host {
    folder: Folder,
    machine: Box<dyn Machine>,
    numbers: AtomicU32,
}

/// What a host runs in.
pub(super) trait Machine: std::fmt::Debug {
    /// What a command inside begins with, as root and outside of all units; once its systemd answers.
    fn inside(&self) -> Option<Command>;
    /// Its first process, if it is one of this machine's.
    fn leader(&self) -> Option<Pid>;
    fn has_ended(&self) -> bool;
    /// Ends it and all that is in it at once.
    fn kill(&self);
}

/// The device with the mode that udev gives it, if the machine has it: a node of its own, the machine's stays as it is.
/// When all is up, or systemd-tmpfiles meets it half made.
const KVM: &str = "mknod --mode=0660 /dev/kvm c 10 232 && chgrp kvm /dev/kvm";

const POWER_OFF: Duration = Duration::from_secs(15);

impl Host {
    /// Boots one, and waits until all is up that its boot starts.
    pub fn boot(options: Options) -> Self {
        assert!(geteuid().is_root(), "a host needs root: run its tests as root, or leave them out");
        let base = if options.firewalls { base::container_with_firewalls() } else { base::container() };
        let folder = Folder::new();
        let container = Container::start(&base, folder.place(), folder.groups(), options.bus);
        let host = Host::up(folder, Box::new(container), Duration::from_secs(60));
        // A copy of the machine's node. Where nothing like udev made that one, it is root's alone.
        host.ask(["chmod", "0666", "/dev/net/tun"]);
        if Path::new("/dev/kvm").exists() {
            host.ask(["sh", "-ec", KVM]);
        }
        host
    }

    /// Boots one on a machine of its own, emulated: with KVM, and with limits that hold. It takes half a minute, and
    /// nobody can be `Active` or `Inactive` in it.
    pub fn boot_machine() -> Self {
        assert!(geteuid().is_root(), "a host needs root: run its tests as root, or leave them out");
        let (base, folder) = (base::machine(), Folder::new());
        let emulator = Emulator::start(&base, folder.place());
        Host::up(folder, Box::new(emulator), Duration::from_secs(240))
    }

    fn up(folder: Folder, machine: Box<dyn Machine>, limit: Duration) -> Self {
        let host = Host { folder, machine, numbers: AtomicU32::new(0) };
        let mut state = String::new();
        within(limit, "the host is up", || {
            let console = || std::fs::read_to_string(host.folder.place().console()).unwrap_or_default();
            assert!(!host.machine.has_ended(), "the host has ended: {}", console());
            let Some(mut inside) = host.machine.inside() else { return false };
            let asked = inside.args(["timeout", "60", "systemctl", "is-system-running", "--wait"]).output().unwrap();
            state = String::from_utf8(asked.stdout).unwrap().trim().to_owned();
            ["running", "degraded"].contains(&state.as_str())
        });
        if state == "degraded" {
            println!("the host is degraded: {}", host.failed_units().join(" "));
        }
        host
    }

    /// Units that have failed.
    pub fn failed_units(&self) -> Vec<String> {
        let units = self.ask(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]);
        units.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
    }

    /// A command line for somebody, not yet run.
    pub fn errand<I, S>(&self, who: Who, words: I) -> Errand<'_>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Errand::new(self, who, words.into_iter().map(|word| word.as_ref().to_owned()).collect())
    }

    /// Runs a command line as root.
    pub fn run<I, S>(&self, words: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.run_as(Who::Root, words)
    }

    pub fn run_as<I, S>(&self, who: Who, words: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.errand(who, words).run()
    }

    /// Runs a command line of root's that must succeed; its stdout.
    pub fn ok<I, S>(&self, words: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.ok_as(Who::Root, words)
    }

    pub fn ok_as<I, S>(&self, who: Who, words: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.errand(who, words).ok()
    }

    /// Starts a command line and lets it run.
    pub fn start_as<I, S>(&self, who: Who, words: I) -> Running<'_>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.errand(who, words).start()
    }

    /// Runs a shell script of root's that must succeed; its stdout.
    pub fn sh(&self, script: &str) -> String {
        self.ok(["sh", "-euc", script])
    }

    /// Writes a file, readable by all.
    pub fn write(&self, path: &str, contents: impl Into<Vec<u8>>) {
        self.errand(Who::Root, ["install", "-D", "--mode=0644", "/dev/stdin", path]).stdin(contents).ok();
    }

    /// Where on the machine it keeps what it writes.
    pub fn folder(&self) -> &Path {
        self.folder.place().path()
    }

    /// The host's processes have this one as their first: for measurements from outside.
    pub fn leader(&self) -> Pid {
        self.machine.leader().expect("the host runs in a container")
    }

    /// A command of the harness's own, outside of all units.
    pub(super) fn inside(&self) -> Command {
        self.machine.inside().expect("the host runs")
    }

    /// Asks something of the harness's own that must succeed.
    pub(super) fn ask<const N: usize>(&self, words: [&str; N]) -> String {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let output = self.inside().args(["timeout", "30"]).args(&words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether who logs in last sits there.
    pub(super) fn has_seat(&self) -> bool {
        self.machine.leader().is_some()
    }

    /// Who sits at the machine.
    pub(super) fn sitting(&self) -> Option<String> {
        let session = self.ask(["loginctl", "show-seat", "seat0", "--property=ActiveSession", "--value"]);
        let session = session.trim();
        if session.is_empty() {
            return None;
        }
        // It may end in this moment.
        let asked = self.inside().args(["loginctl", "show-session", session, "--property=Name", "--value"]).output();
        Some(String::from_utf8(asked.unwrap().stdout).unwrap().trim().to_owned())
    }

    pub(super) fn next_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// In order, if it can; else at once.
    fn power_off(&mut self) {
        if let Some(mut inside) = self.machine.inside() {
            let order = ["timeout", "5", "systemctl", "start", "--no-block", "--job-mode=replace-irreversibly"];
            drop(inside.args(order).arg("poweroff.target").output());
            patiently(POWER_OFF, || self.machine.has_ended());
        }
        self.machine.kill();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.power_off();
        let ended = patiently(Duration::from_secs(10), || self.machine.has_ended());
        let left =
            [leftovers::processes(self.folder.place().path()), leftovers::mounts(self.folder.place().path())].concat();
        if std::thread::panicking() {
            println!("the host's journal and console are in {}", evidence::keep(self.folder.place()).display());
            println!("left of the host: {left:#?}");
        } else {
            assert!(ended && left.is_empty(), "left of the host: {left:#?}");
        }
    }
}
