//! A keeper as an instance of one template pair: `banger-vm@ID.socket`, made by systemd for the supervisor's user, and
//! `banger-vm@ID.service` behind it, with a uid of its own. The name says everything, so nothing is remembered.

use std::path::{Path, PathBuf};

use banger_bus::process::Process;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use zbus::Connection;
use zbus::wire::Variant;

use super::systemd::Systemd;
use super::{Haste, Limits, Runner};

/// Where the socket unit puts its sockets (`systemd/system/banger-vm@.socket`).
const SOCKETS: &str = "/run/banger/vm";
const PREFIX: &str = "banger-vm@";
/// What keeper and VMM need beyond the guest's memory.
const OVERHEAD_MIB: u64 = 256;
/// Of a processor, a VMM's other threads.
const OVERHEAD_CPU_USEC: u64 = 500_000;

/// Keepers as units of the system.
#[derive(Debug)]
pub(crate) struct Units {
    connection: Connection,
    systemd: OnceCell<Systemd>,
}

fn socket(vm: &VmId) -> String {
    format!("{PREFIX}{vm}.socket")
}

fn service(vm: &VmId) -> String {
    format!("{PREFIX}{vm}.service")
}

/// The VM of a unit's name.
fn vm_of(unit: &str) -> Option<VmId> {
    let instance = unit.strip_prefix(PREFIX)?;
    instance.strip_suffix(".socket").or_else(|| instance.strip_suffix(".service"))?.parse().ok()
}

/// What the guest was promised, and what its VMM needs for it; systemd.resource-control(5).
fn properties(limits: Limits) -> [(&'static str, Variant<'static>); 3] {
    let memory = (u64::from(limits.memory_mib) + OVERHEAD_MIB) << 20;
    let cpu = u64::from(limits.vcpus) * 1_000_000 + OVERHEAD_CPU_USEC;
    let weight: u64 = match limits.haste {
        Haste::Waited => 100,
        Haste::None => 1,
    };
    [
        ("MemoryMax", Variant::from(memory)),
        ("CPUQuotaPerSecUSec", Variant::from(cpu)),
        ("CPUWeight", Variant::from(weight)),
    ]
}

impl Units {
    pub(crate) fn new(connection: Connection) -> Self {
        Units { connection, systemd: OnceCell::new() }
    }

    async fn systemd(&self) -> Result<&Systemd> {
        self.systemd.get_or_try_init(|| Systemd::connect(&self.connection)).await
    }
}

impl Runner for Units {
    fn socket(&self, vm: &VmId) -> (PathBuf, String) {
        (Path::new(SOCKETS).to_owned(), format!("{vm}.sock"))
    }

    fn start<'a>(&'a self, vm: &'a VmId, limits: Limits) -> BoxFuture<'a, Result<Option<Process>>> {
        async move {
            let systemd = self.systemd().await?;
            systemd.set(&service(vm), &properties(limits)).await?;
            systemd.start(&socket(vm)).await?;
            Ok(None)
        }
        .boxed()
    }

    fn may_live<'a>(&'a self, vm: &'a VmId, _: Option<&'a Process>) -> BoxFuture<'a, bool> {
        async move {
            let listed = async { self.systemd().await?.list(&service(vm)).await };
            // What systemd does not say is not known.
            listed.await.map_or(true, |units| units.iter().any(|(_, state)| state != "inactive" && state != "failed"))
        }
        .boxed()
    }

    fn kill<'a>(&'a self, vm: &'a VmId, _: Option<&'a Process>) -> BoxFuture<'a, Result<()>> {
        async move {
            let systemd = self.systemd().await?;
            let was = systemd.kill(&service(vm)).await?;
            systemd.stop(&socket(vm)).await?;
            systemd.stop(&service(vm)).await?;
            if was { Ok(()) } else { Err(Error::new(Kind::Gone, "the VM's keeper has ended")) }
        }
        .boxed()
    }

    fn settle<'a>(&'a self, vm: &'a VmId, _: Option<&'a Process>) -> BoxFuture<'a, Result<()>> {
        async move {
            let systemd = self.systemd().await?;
            // The service requires its socket, and goes with it; but it may have been left without one.
            systemd.stop(&socket(vm)).await?;
            systemd.stop(&service(vm)).await.map(drop)
        }
        .boxed()
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<VmId>>> {
        async move {
            let units = self.systemd().await?.list(&format!("{PREFIX}*")).await?;
            let mut vms: Vec<VmId> = units.iter().filter_map(|(unit, _)| vm_of(unit)).collect();
            vms.sort();
            vms.dedup();
            Ok(vms)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_and_its_vm_name_each_other() {
        let vm: VmId = "abcdefghij".parse().unwrap();
        assert_eq!(vm_of(&socket(&vm)), Some(vm.clone()));
        assert_eq!(vm_of(&service(&vm)), Some(vm));
        for stranger in ["banger-vm@.service", "banger-vms.service", "banger-vm@../x.service", "ssh.service"] {
            assert_eq!(vm_of(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_guest_of_a_gigabyte_may_use_one_and_what_its_vmm_needs() {
        let limits = Limits { vcpus: 2, memory_mib: 1024, haste: Haste::None };
        let [(_, memory), (_, cpu), (_, weight)] = properties(limits);
        assert_eq!(memory, Variant::from(1280u64 << 20));
        assert_eq!(cpu, Variant::from(2_500_000u64));
        assert_eq!(weight, Variant::from(1u64));
    }
}
