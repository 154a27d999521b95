//! A network of the test's own, and everything that a test does to it from outside.

use std::fs;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use banger_bus::process::Process;
use banger_network::host::rootless::process;
use banger_network::host::{Host, Places, Refusal, Rootless, UserNamespaces};
use banger_network::render::{Guest, Reach};
use banger_schemas::VmId;
use tempfile::TempDir;

use crate::pretend::Place;

/// A network that is taken down with the test.
pub(crate) struct Network {
    pub(crate) host: Rootless,
    pub(crate) places: Places,
    folder: TempDir,
}

impl Network {
    /// A network, up; see [`Network::prepare`].
    pub(crate) async fn up() -> Option<Self> {
        let network = Network::prepare().await?;
        network.host.ensure().await.unwrap();
        Some(network)
    }

    /// A network that is not there yet; `None` where this machine refuses one for a reason that we know, which is printed.
    pub(crate) async fn prepare() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let runtime = folder.path().join("runtime").join("x".repeat(120));
        let helper = PathBuf::from(env!("CARGO_BIN_EXE_banger-netns"));
        let places = Places { helper, runtime, state: folder.path().join("state") };
        let host = Rootless::new(places.clone());
        if let Err(refusal) = host.probe().await {
            let unexplained = matches!(refusal, Refusal::UserNamespacesRefused(UserNamespaces::Unexplained { .. }));
            assert!(!unexplained && !matches!(refusal, Refusal::HelperMissing(_)), "{refusal}");
            println!("SKIPPED: no network without privilege here: {refusal}. {}", refusal.cure());
            return None;
        }
        Some(Network { host, places, folder })
    }

    /// A second service on the same folders, as after a restart.
    pub(crate) fn restarted(&self) -> Rootless {
        Rootless::new(self.places.clone())
    }

    pub(crate) fn process(&self, record: &str) -> Process {
        process::recorded(&self.places.state.join(record)).unwrap().unwrap()
    }

    /// Takes it down and proves that nothing is left.
    pub(crate) async fn down(self) {
        let (holder, uplink) = (self.process("holder.json"), self.process("uplink.json"));
        self.host.down().await.unwrap();
        assert!(!holder.alive() && !uplink.alive());
        assert_eq!(files(self.folder.path()), Vec::<PathBuf>::new());
        soon("children are reaped", || async { zombies().is_empty() }).await;
        // Twice is fine.
        self.host.down().await.unwrap();
    }
}

impl Place for Network {
    fn pid(&self) -> u32 {
        self.process("holder.json").pid.cast_unsigned()
    }

    fn namespaces(&self) -> &'static [&'static str] {
        &["-U", "-n", "--preserve-credentials"]
    }
}

impl Drop for Network {
    /// For tests that failed.
    fn drop(&mut self) {
        for record in ["holder.json", "uplink.json"] {
            if let Ok(Some(process)) = process::recorded(&self.places.state.join(record))
                && process.alive()
            {
                let _ = Command::new("kill").args(["-9", &process.pid.to_string()]).status();
            }
        }
    }
}

pub(crate) fn guest(vm: &VmId, last: u8, reach: Reach) -> Guest {
    let address = Ipv4Addr::new(172, 16, 0, last);
    Guest { vm: vm.clone(), mac: banger_network::pool::mac(vm), address, reach }
}

pub(crate) fn vm(name: &str) -> VmId {
    name.parse().unwrap()
}

/// Waits for something that happens soon.
pub(crate) async fn soon<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}: not in time");
}

/// Files and sockets below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Dead children of this process that nobody has waited for.
fn zombies() -> Vec<String> {
    let own = std::process::id().to_string();
    let stats = fs::read_dir("/proc").unwrap().filter_map(|e| fs::read_to_string(e.ok()?.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
            fields.starts_with(&format!("Z {own} "))
        })
        .collect()
}
