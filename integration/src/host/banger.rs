//! What is put on the host: banger, by its own command; the small image, so that no network is needed; examples.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Host, User, Who};
use crate::Banger;

/// What is put into the host's catalog, by recipe.
const SEED: [(&str, &str); 2] = [("kernels", "debian-bookworm-cloud"), ("images", "debian-tiny")];

/// The images service's, as the unit lays it out.
const CATALOG: &str = "/var/lib/banger/images/catalog";

/// The services as their units are named, and in the same order as the bus knows them.
pub const SERVICES: [&str; 6] = ["network", "storage", "images", "vms", "dns", "sessions"];
pub const NAMES: [&str; 6] = ["Network1", "Storage1", "Images1", "Vms1", "Dns1", "Sessions1"];

/// Their units.
pub fn units() -> [String; 6] {
    SERVICES.map(|service| format!("banger-{service}.service"))
}

impl Host {
    /// Starts all services, which otherwise are when somebody asks for them.
    pub fn start_services(&self) {
        self.ok(["systemctl".to_owned(), "start".to_owned()].into_iter().chain(units()));
    }

    /// What a service has in memory (`VmRSS`) or has had at most (`VmHWM`), in KiB.
    pub fn memory_kib(&self, service: &str, kind: &str) -> u64 {
        let status =
            self.sh(&format!("cat /proc/$(systemctl show --value -p MainPID banger-{service}.service)/status"));
        let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// How many files a service has open.
    pub fn open_files(&self, service: &str) -> usize {
        let open = format!("ls /proc/$(systemctl show --value -p MainPID banger-{service}.service)/fd | wc -l");
        self.sh(&open).trim().parse().unwrap()
    }

    /// Installs banger for Alice, as a person does.
    pub fn install(&self) {
        let words = ["/mnt/dist/bin/banger", "system", "install", "--owner", User::Alice.name()];
        self.errand(Who::Root, words).limit(Duration::from_secs(120)).ok();
    }

    /// Puts one of this package's examples on the host; its path there.
    pub fn example(&self, name: &str) -> String {
        self.program(&crate::dist().join("../debug/examples").join(name), name)
    }

    /// Puts a program on the host, by this name; its path there.
    pub fn program(&self, built: &Path, name: &str) -> String {
        let bytes = std::fs::read(built).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        let path = format!("/usr/local/lib/{name}");
        self.errand(Who::Root, ["install", "--mode=0755", "/dev/stdin", &path]).stdin(bytes).ok();
        path
    }

    /// Gives the installed banger the kernel and the small image, built once a machine by banger itself.
    pub fn seed_images(&self) {
        let built = Banger::new(crate::Who::Me);
        let entries = SEED.map(|(class, recipe)| entry(built.catalog(), class, recipe));
        let pack = Command::new("tar").arg("--create").arg("--directory").arg(built.catalog()).args(entries).output();
        let unpack = format!("mkdir -p {CATALOG} && tar --extract --no-same-owner --directory {CATALOG}");
        self.errand(Who::Root, ["sh", "-ec", &unpack]).stdin(pack.unwrap().stdout).ok();
        self.sh("chown -R banger-images:banger-vm /var/lib/banger/images && chmod 0700 /var/lib/banger/images \
                 && find /var/lib/banger/images/catalog -type f -exec chmod 0440 {} +");
    }
}

/// What was made by a recipe, in a class of the catalog: its folder there.
fn entry(catalog: &Path, class: &str, recipe: &str) -> PathBuf {
    let made_by = |folder: &Path| {
        let manifest = std::fs::read_to_string(folder.join("manifest.json")).ok()?;
        manifest.parse::<Value>().ok()?["recipe"].as_str().map(str::to_owned)
    };
    let mut entries = std::fs::read_dir(catalog.join(class)).unwrap().flatten().map(|entry| entry.path());
    let found = entries.find(|folder| made_by(folder).as_deref() == Some(recipe));
    let found = found.unwrap_or_else(|| panic!("{} has no {recipe}", catalog.display()));
    found.strip_prefix(catalog).unwrap().to_owned()
}
