//! Vms1: virtual machines and their lives.

use zbus::proxy;
use zbus::wire::{OwnedFd, OwnedObjectPath};

use crate::error::{Error, Result};
use crate::images::DEFAULT_IMAGE;
use crate::name::{ImageName, VmName};
use crate::options::{Dict, DictBuilder, Options};
use crate::size;

pub const NAME: &str = "dev.banger.Vms1";
pub const PATH: &str = "/dev/banger/Vms1";
pub const MANAGER: &str = "dev.banger.Vms1.Manager";
pub const VM: &str = "dev.banger.Vms1.Vm";

pub const DEFAULT_VCPUS: u32 = 2;
pub const DEFAULT_MEMORY_MIB: u32 = 1024;
pub const DEFAULT_DISK_MIB: u64 = 8192;

/// What a VM is made of. Absent: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    pub name: Option<VmName>,
    pub image: Option<ImageName>,
    pub kernel: Option<ImageName>,
    pub vcpus: Option<u32>,
    pub memory_mib: Option<u32>,
    pub disk_mib: Option<u64>,
    /// Ports published on the VM's loopback address.
    pub ports: Vec<Port>,
    /// Whether the VM is started when it is made.
    pub start: bool,
    /// Tied to the caller's bus name: deleted when the caller is gone.
    pub ephemeral: bool,
    /// Whether the VM has a network at all.
    pub network: bool,
    /// Whether it reaches the outside, and not only who talks to it from this host.
    pub nat: bool,
    /// What it is run by.
    pub backend: Wanted,
    /// It boots, whatever template there is.
    pub cold: bool,
}

/// What a VM is to be run by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// The best that works.
    #[default]
    Auto,
    /// QEMU, with KVM where that works.
    Qemu,
    Firecracker,
}

impl Wanted {
    pub const ALL: [Wanted; 3] = [Wanted::Auto, Wanted::Qemu, Wanted::Firecracker];

    pub fn as_str(self) -> &'static str {
        match self {
            Wanted::Auto => "auto",
            Wanted::Qemu => "qemu",
            Wanted::Firecracker => "firecracker",
        }
    }
}

impl std::str::FromStr for Wanted {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let known = Wanted::ALL.into_iter().find(|wanted| wanted.as_str() == s);
        known.ok_or_else(|| Error::invalid(format!("{s:?} is no backend: write auto, qemu or firecracker")))
    }
}

/// A published port: `HOST:GUEST`, TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Port {
    pub host: u16,
    pub guest: u16,
}

impl std::str::FromStr for Port {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("{s:?} is no port to publish: write HOST:GUEST, such as 8080:80, or PORT"));
        let (host, guest) = s.split_once(':').unwrap_or((s, s));
        let parse = |p: &str| p.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(bad);
        Ok(Port { host: parse(host)?, guest: parse(guest)? })
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

impl Spec {
    /// What a rule can test before the VM is there. A name that is not given has still to be found.
    pub fn details(&self, owner: u32) -> Details {
        Details::new(
            self.name.as_ref().map_or("", VmName::as_str),
            owner,
            self.image.as_ref().map_or(DEFAULT_IMAGE, ImageName::as_str),
            self.vcpus.unwrap_or(DEFAULT_VCPUS),
            self.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
            self.disk_mib.unwrap_or(DEFAULT_DISK_MIB),
        )
    }

    /// As it goes over the bus.
    pub fn to_dict(&self) -> Dict {
        let ports: Vec<String> = self.ports.iter().map(Port::to_string).collect();
        DictBuilder::default()
            .set_some("name", self.name.as_ref().map(VmName::as_str))
            .set_some("image", self.image.as_ref().map(ImageName::as_str))
            .set_some("kernel", self.kernel.as_ref().map(ImageName::as_str))
            .set_some("vcpus", self.vcpus)
            .set_some("memory-mib", self.memory_mib)
            .set_some("disk-mib", self.disk_mib)
            .set_some("ports", (!ports.is_empty()).then_some(ports))
            .set("start", self.start)
            .set("ephemeral", self.ephemeral)
            .set("network", self.network)
            .set("nat", self.nat)
            .set_some("cold", self.cold.then_some(true))
            .set_some("backend", (self.backend != Wanted::Auto).then(|| self.backend.as_str()))
            .build()
    }

    /// As it is understood: every value in its bounds, every key known.
    pub fn from_dict(dict: Dict) -> Result<Self> {
        let mut options = Options::new(dict)?;
        let name = options.take::<String>("name")?.map(|n| n.parse()).transpose()?;
        let image = options.take::<String>("image")?.map(|n| n.parse()).transpose()?;
        let kernel = options.take::<String>("kernel")?.map(|n| n.parse()).transpose()?;
        let vcpus = options.take::<u32>("vcpus")?.map(|n| size::vcpus(n.into())).transpose()?;
        let memory_mib = options.take::<u32>("memory-mib")?.map(|n| size::memory_mib(n.into())).transpose()?;
        let disk_mib = options.take::<u64>("disk-mib")?.map(size::disk_mib).transpose()?;
        let ports = options.take::<Vec<String>>("ports")?.unwrap_or_default();
        let ports = ports.iter().map(|p| p.parse()).collect::<Result<Vec<Port>>>()?;
        let start = options.take("start")?.unwrap_or(true);
        let ephemeral = options.take("ephemeral")?.unwrap_or(false);
        let network = options.take("network")?.unwrap_or(true);
        let nat = options.take("nat")?.unwrap_or(true);
        let backend = options.take::<String>("backend")?.map(|b| b.parse()).transpose()?.unwrap_or_default();
        let cold = options.take("cold")?.unwrap_or(false);
        options.finish()?;
        if ports.len() > 64 {
            return Err(Error::invalid("no more than 64 ports can be published"));
        }
        Ok(Spec {
            name,
            image,
            kernel,
            vcpus,
            memory_mib,
            disk_mib,
            ports,
            start,
            ephemeral,
            network,
            nat,
            backend,
            cold,
        })
    }
}

/// What an administrator's rule can test about a VM, as in `action.lookup("vm")`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details([(&'static str, String); 6]);

impl Details {
    pub fn new(vm: &str, owner: u32, image: &str, vcpus: u32, memory_mib: u32, disk_mib: u64) -> Self {
        Details([
            ("vm", vm.to_owned()),
            ("owner", owner.to_string()),
            ("image", image.to_owned()),
            ("vcpus", vcpus.to_string()),
            ("memory-mib", memory_mib.to_string()),
            ("disk-mib", disk_mib.to_string()),
        ])
    }

    pub fn pairs(&self) -> [(&str, &str); 6] {
        self.0.each_ref().map(|(key, value)| (*key, value.as_str()))
    }
}

/// The supervisor of all VMs.
#[proxy(interface = "dev.banger.Vms1.Manager", default_service = "dev.banger.Vms1", default_path = "/dev/banger/Vms1")]
pub trait Manager {
    /// Makes a VM. `spec`: `name s`, `image s`, `kernel s`, `vcpus u`, `memory-mib u`, `disk-mib t`, `ports as`
    /// (`HOST:GUEST`), `start b` (true), `ephemeral b` (false), `network b` (true), `nat b` (true),
    /// `backend s` (`auto`, `qemu`, `firecracker`), `cold b` (false: it may go on from a template). `options`: `token s`: a
    /// repeated token returns the same VM and job, so a lost reply makes no second VM. Returns the VM and the job that makes
    /// it.
    fn create(&self, spec: Dict, options: Dict) -> zbus::Result<(OwnedObjectPath, OwnedObjectPath)>;

    /// The VM of this name, id, or unique beginning of an id. An ambiguous one lists the candidates. Others' VMs are
    /// there for who may see them. `options`: `owner u`: as this user sees it, for who may see everybody's.
    fn get(&self, reference: &str, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// Templates that new VMs go on from, the least recently used first. Each: `name s`, `image s`, `kernel s`, `backend s`,
    /// `vcpus u`, `memory-mib u`, `disk-mib t`, `network b`, `size t` (bytes on the disk), `created t`, `used t` (seconds
    /// since the epoch).
    fn list_templates(&self, options: Dict) -> zbus::Result<Vec<Dict>>;

    /// Removes all templates; how many. VMs that go on from one are not disturbed, and the next of its kind boots.
    fn prune_templates(&self, options: Dict) -> zbus::Result<u32>;

    /// How VMs run on this host: `firecracker`, `qemu-kvm`, `qemu-tcg`, or empty when they cannot.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend(&self) -> zbus::Result<String>;

    /// Why this backend, in one sentence.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend_reason(&self) -> zbus::Result<String>;

    /// Every way to run VMs, the best first: its name, whether it works here, what speaks for or against it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backends(&self) -> zbus::Result<Vec<(String, bool, String)>>;

    /// The version of the service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}

/// One VM.
#[proxy(interface = "dev.banger.Vms1.Vm", default_service = "dev.banger.Vms1")]
pub trait Vm {
    /// Boots the VM. Returns a job, done when the agent has taken its identity.
    fn start(&self, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// Asks the guest to sync and power off, waits `grace-ms u` (10000), then ends it. Disks and address stay.
    fn stop(&self, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// Changes what can be changed while it runs, and stays so: `nat b`: whether it reaches the outside, and not only who
    /// talks to it from this host.
    fn set(&self, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// Ends the VM at once and removes everything that belongs to it.
    fn delete(&self, options: Dict) -> zbus::Result<OwnedObjectPath>;

    /// The console: a descriptor to read what the guest has written last; with `follow b` also what comes.
    fn console(&self, options: Dict) -> zbus::Result<OwnedFd>;

    /// A stream to the agent, for a peer of the mesh.
    fn open_channel(&self, options: Dict) -> zbus::Result<OwnedFd>;

    /// Its identity for its whole life; what the host calls its things by.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<String>;

    /// Its name: unique, also its DNS name NAME.vm and the guest's host name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// The uid that it belongs to.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> zbus::Result<u32>;

    /// `creating`, `stopped`, `starting`, `running`, `stopping`, `deleting` or `failed`.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn state(&self) -> zbus::Result<String>;

    /// Why it is in this state, where there is something to say.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn detail(&self) -> zbus::Result<String>;

    /// The root file system that it stands on.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> zbus::Result<String>;

    /// The kernel that it boots.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kernel(&self) -> zbus::Result<String>;

    /// Virtual CPUs.
    #[zbus(property(emits_changed_signal = "const"))]
    fn vcpus(&self) -> zbus::Result<u32>;

    /// In MiB.
    #[zbus(property(emits_changed_signal = "const"))]
    fn memory_mib(&self) -> zbus::Result<u32>;

    /// The size the disks may grow to, in MiB.
    #[zbus(property(emits_changed_signal = "const"))]
    fn disk_mib(&self) -> zbus::Result<u64>;

    /// The guest's address in its network; empty without one.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn address(&self) -> zbus::Result<String>;

    /// The address that the VM's name resolves to on this host; empty without one.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn host_address(&self) -> zbus::Result<String>;

    /// Published ports, `HOST:GUEST`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn ports(&self) -> zbus::Result<Vec<String>>;

    /// Whether it reaches the outside, and not only who talks to it from this host.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn nat(&self) -> zbus::Result<bool>;

    /// How it runs (`firecracker`, `qemu-kvm`, `qemu-tcg`); empty while it does not.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn backend(&self) -> zbus::Result<String>;

    /// Why it runs so; empty while it does not.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn backend_reason(&self) -> zbus::Result<String>;

    /// How it was started (`template`, `boot`); empty while it does not run.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn started(&self) -> zbus::Result<String>;

    /// Why it has booted; empty otherwise.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn started_reason(&self) -> zbus::Result<String>;

    /// By which its ssh server is known, as in known_hosts(5): `ssh-ed25519` and the key; empty if a version made it that gave
    /// none.
    #[zbus(property(emits_changed_signal = "const"))]
    fn ssh_host_key(&self) -> zbus::Result<String>;

    /// What it is to be run by: `auto`, `qemu` or `firecracker`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend_wanted(&self) -> zbus::Result<String>;

    /// Deleted when its client is gone.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn ephemeral(&self) -> zbus::Result<bool>;

    /// What the user should know: a missing network, a warning of the guest.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn notes(&self) -> zbus::Result<Vec<String>>;

    /// Seconds since the epoch.
    #[zbus(property(emits_changed_signal = "const"))]
    fn created(&self) -> zbus::Result<u64>;

    /// `/proc/sys/kernel/random/boot_id` of the guest that runs; empty while none does.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn boot_id(&self) -> zbus::Result<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_bus() {
        let spec = Spec {
            name: Some("box".parse().unwrap()),
            vcpus: Some(2),
            disk_mib: Some(8192),
            ports: vec![Port { host: 8080, guest: 80 }],
            start: true,
            ephemeral: true,
            backend: Wanted::Firecracker,
            cold: true,
            ..Spec::default()
        };
        assert_eq!(Spec::from_dict(spec.to_dict()), Ok(spec));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for (key, value) in [("vcpus", 0u32), ("memory-mib", 1)] {
            assert!(Spec::from_dict(DictBuilder::default().set(key, value).build()).is_err());
        }
        assert!(Spec::from_dict(DictBuilder::default().set("colour", "red").build()).is_err());
        assert!(Spec::from_dict(DictBuilder::default().set("backend", "qemu-kvm").build()).is_err());
        assert!("0:80".parse::<Port>().is_err() && "80:".parse::<Port>().is_err() && "x".parse::<Port>().is_err());
        assert_eq!("80".parse(), Ok(Port { host: 80, guest: 80 }));
    }
}
