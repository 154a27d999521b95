//! The D-Bus faces: authorize, parse, ask, answer.

mod manager;
mod vm;

use banger_schemas::VmId;
use banger_schemas::vms::PATH;

pub(crate) use manager::{ManagerFace, publish};
pub(crate) use vm::VmFace;

/// Where a VM is on the bus.
pub(crate) fn vm_path(id: &VmId) -> String {
    format!("{PATH}/vm/{id}")
}
