//! What can go wrong with the host's network, and why a host cannot have one at all. Each refusal knows its cure.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use bincode::{Decode, Encode};

/// Why this machine gives an unprivileged user no VM network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    #[error("/dev/net/tun may not be opened (errno {errno})")]
    DevTunClosed { errno: i32 },
    #[error("/dev/net/tun is absent (errno {errno})")]
    DevTunMissing { errno: i32 },
    #[error("user namespaces are refused: {0}")]
    UserNamespacesRefused(UserNamespaces),
    #[error("the program nft is missing")]
    NftMissing,
    #[error("the program slirp4netns is missing")]
    SlirpMissing,
    #[error("banger's own helper is missing at {0}")]
    HelperMissing(String),
    #[error("{link} has {address}, which is in the network of VMs")]
    NetworkTaken { link: String, address: String },
    #[error("{0}")]
    NoRight(String),
}

/// What keeps an ordinary user from making a user namespace with rights in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum UserNamespaces {
    /// Ubuntu 23.10 and later: the namespace is made, and is without any right.
    #[error("AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns=1)")]
    AppArmor,
    /// Debian's and Arch's patch.
    #[error("kernel.unprivileged_userns_clone=0")]
    Clone,
    #[error("user.max_user_namespaces=0")]
    Maximum,
    /// No known switch explains it: seccomp of a container, another security module, a kernel without them.
    #[error("{step} failed with errno {errno}")]
    Unexplained { step: String, errno: i32 },
}

impl Refusal {
    /// What makes it work: one sentence for the person at the terminal.
    pub fn cure(&self) -> String {
        let cure = match self {
            Refusal::DevTunClosed { .. } => {
                "Run `sudo chmod 0666 /dev/net/tun` (the default of udev), or start the container with that device."
            }
            Refusal::DevTunMissing { .. } => {
                "Run `sudo modprobe tun`, or start the container with `--device /dev/net/tun`."
            }
            Refusal::UserNamespacesRefused(UserNamespaces::AppArmor) => {
                "Run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
            }
            Refusal::UserNamespacesRefused(UserNamespaces::Clone) => {
                "Run `sudo sysctl kernel.unprivileged_userns_clone=1`."
            }
            Refusal::UserNamespacesRefused(UserNamespaces::Maximum) => {
                "Run `sudo sysctl user.max_user_namespaces=15000`."
            }
            Refusal::UserNamespacesRefused(UserNamespaces::Unexplained { .. }) => {
                "Allow user namespaces for this user; in a container, its seccomp profile must allow unshare and setns."
            }
            Refusal::NftMissing => "Install it: `sudo apt install nftables`.",
            Refusal::SlirpMissing => "Install it: `sudo apt install slirp4netns`.",
            Refusal::NetworkTaken { .. } => "Take that address away, or give VMs another network.",
            Refusal::NoRight(_) => "Start banger's network service by its unit: it has CAP_NET_ADMIN there.",
            Refusal::HelperMissing(_) => "Install banger again: this file belongs beside its other programs.",
        };
        cure.to_owned()
    }
}

/// A failed change of the host's network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{refusal}. {cure}", refusal = .0, cure = .0.cure())]
    Refused(#[from] Refusal),
    /// The namespace is gone or was never made: `ensure` first.
    #[error("the network namespace is not there; it must be made again")]
    NoNamespace,
    #[error("{op} failed: {message}")]
    Op { op: String, message: String },
    /// A link of a name that we need.
    #[error("{0} is on this host already and is not banger's: rename it or remove it (ip link)")]
    Foreign(String),
    #[error("nft refused the rules: {0}")]
    Nft(String),
    #[error("the uplink: {0}")]
    Uplink(String),
    #[error("{0} is in use by another program; publish another port")]
    PortTaken(SocketAddrV4),
    #[error(
        "{0} needs a right: ports below net.ipv4.ip_unprivileged_port_start (usually 1024) are root's; publish a higher one"
    )]
    PortPrivileged(SocketAddrV4),
    #[error("{what} gave no answer within {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// What the store of records says, as the host's trouble.
pub(super) fn recorded(error: banger_schemas::error::Error) -> Error {
    Error::Op { op: "keeping a record".to_owned(), message: error.message }
}
