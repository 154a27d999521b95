//! Actions that callers are authorized for: few, by area and verb. polkit decides on a real host; in embedded mode
//! the peer's uid does.

/// A polkit action id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Action(pub &'static str);

/// See one's own VMs, jobs, disks and network.
pub const VIEW: Action = Action("dev.banger.vms.view");
/// Create a VM.
pub const VM_CREATE: Action = Action("dev.banger.vms.create");
/// Start, stop and delete one's own VM; run commands in it; read its console.
pub const VM_MANAGE: Action = Action("dev.banger.vms.manage");
/// The same for other users' VMs.
pub const VM_MANAGE_ALL: Action = Action("dev.banger.vms.manage-all");
/// See the catalog of images and kernels.
pub const IMAGE_VIEW: Action = Action("dev.banger.images.view");
/// Fetch or build an image or a kernel.
pub const IMAGE_PULL: Action = Action("dev.banger.images.pull");
/// Delete an image or a kernel.
pub const IMAGE_DELETE: Action = Action("dev.banger.images.delete");
/// What only services of the mesh ask of each other: disks, addresses, image descriptors.
pub const MESH: Action = Action("dev.banger.mesh");

/// Every action, for the policy file and its test.
pub const ALL: &[Action] = &[VIEW, VM_CREATE, VM_MANAGE, VM_MANAGE_ALL, IMAGE_VIEW, IMAGE_PULL, IMAGE_DELETE, MESH];
