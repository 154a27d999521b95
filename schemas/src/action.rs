//! Actions that callers are authorized for: few, by area and verb. polkit decides on a real host; in embedded mode
//! the peer's uid does. The policy file is this table and nothing else (`tests/policy.rs`).

use Defaults::{Host, Sandbox};

/// What may be done, and who may do it without a question.
#[derive(Debug, PartialEq, Eq)]
pub struct Action {
    /// `dev.banger.<area>.<verb>`.
    pub id: &'static str,
    /// Users of services that may, whatever polkit says.
    pub peers: &'static [&'static str],
    /// What polkit is told; an action without is for peers alone.
    pub policy: Option<Policy>,
}

/// An action as polkit knows it (polkit(8)).
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    pub description: &'static str,
    /// Shown to who is asked for a password.
    pub message: &'static str,
    pub defaults: Defaults,
    /// Users of services that ask polkit for it: others may not ask about somebody else.
    pub asked_by: &'static [&'static str],
    /// What somebody who may do this may do as well.
    pub imply: Option<&'static Action>,
}

/// Whose answer it takes where no rule says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// One's own sandboxes: nobody's for who sits at the machine, an administrator's for others. Members of the group
    /// `banger` are not asked (`dbus-policy/rules.d`).
    Sandbox,
    /// What others on this host notice: an administrator's, which is remembered for a while.
    Host,
}

const NETWORK_USER: &str = "banger-network";
const STORAGE_USER: &str = "banger-storage";
const IMAGES_USER: &str = "banger-images";
const VMS_USER: &str = "banger-vms";
const DNS_USER: &str = "banger-dns";
const SESSIONS_USER: &str = "banger-sessions";

/// See how sandboxes run on this host. Nobody is asked about seeing what is their own.
pub const VIEW: &Action = &Action {
    id: "dev.banger.vms.view",
    peers: &[VMS_USER],
    policy: Some(Policy {
        description: "See how sandboxes run on this host",
        message: "Authentication is required to see how sandboxes run on this host",
        defaults: Sandbox,
        asked_by: &[NETWORK_USER, STORAGE_USER, IMAGES_USER, VMS_USER, DNS_USER, SESSIONS_USER],
        imply: None,
    }),
};

/// See other users' VMs and jobs.
pub const VIEW_ALL: &Action = &Action {
    id: "dev.banger.vms.view-all",
    peers: &[DNS_USER, SESSIONS_USER],
    policy: Some(Policy {
        description: "See the sandboxes of all users",
        message: "Authentication is required to see the sandboxes of other users",
        defaults: Host,
        asked_by: &[VMS_USER, IMAGES_USER, DNS_USER],
        imply: None,
    }),
};

/// Create a VM.
pub const VM_CREATE: &Action = &Action {
    id: "dev.banger.vms.create",
    peers: &[],
    policy: Some(Policy {
        description: "Create a sandbox",
        message: "Authentication is required to create a sandbox",
        defaults: Sandbox,
        asked_by: &[VMS_USER],
        imply: None,
    }),
};

/// Start, stop and delete one's own VM; run commands in it; read its console.
pub const VM_MANAGE: &Action = &Action {
    id: "dev.banger.vms.manage",
    peers: &[],
    policy: Some(Policy {
        description: "Use own sandboxes",
        message: "Authentication is required to use a sandbox",
        defaults: Sandbox,
        asked_by: &[VMS_USER, SESSIONS_USER],
        imply: None,
    }),
};

/// The same for other users' VMs.
pub const VM_MANAGE_ALL: &Action = &Action {
    id: "dev.banger.vms.manage-all",
    peers: &[],
    policy: Some(Policy {
        description: "Use the sandboxes of all users",
        message: "Authentication is required to use a sandbox of another user",
        defaults: Host,
        asked_by: &[VMS_USER, IMAGES_USER, SESSIONS_USER],
        imply: Some(VIEW_ALL),
    }),
};

/// Remove what makes all users' new VMs start quickly.
pub const TEMPLATE_PRUNE: &Action = &Action {
    id: "dev.banger.vms.prune-templates",
    peers: &[],
    policy: Some(Policy {
        description: "Remove the templates of sandboxes",
        message: "Authentication is required to remove the templates that all users' sandboxes start from",
        defaults: Host,
        asked_by: &[VMS_USER],
        imply: None,
    }),
};

/// See the catalog of images and kernels.
pub const IMAGE_VIEW: &Action = &Action {
    id: "dev.banger.images.view",
    peers: &[VMS_USER],
    policy: Some(Policy {
        description: "See images and kernels",
        message: "Authentication is required to see the images and kernels of sandboxes",
        defaults: Sandbox,
        asked_by: &[IMAGES_USER],
        imply: None,
    }),
};

/// Fetch or build an image or a kernel.
pub const IMAGE_PULL: &Action = &Action {
    id: "dev.banger.images.pull",
    peers: &[VMS_USER],
    policy: Some(Policy {
        description: "Fetch or build an image or a kernel",
        message: "Authentication is required to fetch or build an image or a kernel for sandboxes",
        defaults: Sandbox,
        asked_by: &[IMAGES_USER],
        imply: None,
    }),
};

/// Delete an image or a kernel, which all users share.
pub const IMAGE_DELETE: &Action = &Action {
    id: "dev.banger.images.delete",
    peers: &[],
    policy: Some(Policy {
        description: "Delete an image or a kernel",
        message: "Authentication is required to delete an image or a kernel that all users of this host share",
        defaults: Host,
        asked_by: &[IMAGES_USER],
        imply: None,
    }),
};

/// Have the disks of VMs.
pub const DISKS: &Action = &Action { id: "dev.banger.storage.disks", peers: &[VMS_USER], policy: None };
/// Have the addresses and TAPs of VMs.
pub const LEASES: &Action = &Action { id: "dev.banger.network.leases", peers: &[VMS_USER], policy: None };
/// Bind images and kernels to VMs, and open them.
pub const CLAIMS: &Action = &Action { id: "dev.banger.images.claims", peers: &[VMS_USER], policy: None };
/// Have a stream to the agent of a VM.
pub const CHANNEL: &Action = &Action { id: "dev.banger.vms.channel", peers: &[SESSIONS_USER], policy: None };

/// Every action.
pub const ALL: &[&Action] = &[
    VIEW,
    VIEW_ALL,
    VM_CREATE,
    VM_MANAGE,
    VM_MANAGE_ALL,
    TEMPLATE_PRUNE,
    IMAGE_VIEW,
    IMAGE_PULL,
    IMAGE_DELETE,
    DISKS,
    LEASES,
    CLAIMS,
    CHANNEL,
];
