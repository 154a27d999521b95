//! What the supervisor must find again: one record a VM, written before the effect that it describes.

use banger_bus::records::Record;
use banger_schemas::network::Lease;
use banger_schemas::vms::Port;
use banger_schemas::{ImageName, VmId, VmName};
use serde::{Deserialize, Serialize};

/// A VM as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub(crate) id: VmId,
    pub(crate) name: VmName,
    pub(crate) owner: u32,
    pub(crate) image: ImageName,
    pub(crate) kernel: ImageName,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    pub(crate) ports: Vec<Port>,
    /// Whether it shall have a network.
    pub(crate) network: bool,
    /// Seconds since the epoch.
    pub(crate) created: u64,
    /// The caller's token: a repeated `Create` finds this VM.
    pub(crate) token: Option<String>,
    pub(crate) machine_id: [u8; 16],
    pub(crate) intent: Intent,
    /// The network that it was given.
    pub(crate) lease: Option<Lease>,
    pub(crate) client: Option<Client>,
    /// How its VMM runs, while it does.
    pub(crate) backend: Option<String>,
}

/// What is being done with the VM, as it must be gone on with after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Intent {
    /// Half made: undone.
    Create,
    /// At rest.
    Stopped,
    /// Running, or about to: adopted if its keeper lives.
    Run,
    /// On its way down.
    Stop,
    /// On its way out: gone on with.
    Remove,
}

/// The client that an ephemeral VM is leased to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// Unique name on the bus that it created the VM on.
    pub(crate) bus_name: String,
    pub(crate) pid: u32,
    /// Field 22 of `/proc/PID/stat`: with the pid it names one process for ever (`proc_pid_stat(5)`).
    pub(crate) start_time: u64,
}

impl Record for VmRecord {
    const TABLE: &'static str = "vms";
    const VERSION: u32 = 1;
}
