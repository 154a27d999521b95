//! Who a VM is: everything that makes one guest different from another, in one message.

use bincode::{Decode, Encode};

/// A VM's identity. Cold boot, restore and fork all end in this message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The VM's id; a second identity with another id is refused.
    pub vm_id: String,
    /// Host name: an RFC 1123 label.
    pub hostname: String,
    /// `/etc/machine-id`: 128 bits.
    pub machine_id: [u8; 16],
    /// `CLOCK_REALTIME` on the host as the message left, in nanoseconds.
    pub clock_ns: u64,
    /// Added to the kernel's random pool and credited.
    pub seed: [u8; 32],
    /// The network, if the VM has one.
    pub address: Option<Address>,
    /// The host's private ssh key in OpenSSH format, for `/etc/ssh/ssh_host_ed25519_key`.
    pub ssh_host_key: Option<String>,
    /// Lines for root's `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Whether the image's init, if there is one, is started.
    pub start_init: bool,
}

/// Where the guest stands in its network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Address {
    pub mac: [u8; 6],
    pub ipv4: [u8; 4],
    pub prefix: u8,
    pub gateway: [u8; 4],
    pub dns: Vec<[u8; 4]>,
    pub mtu: u16,
}
