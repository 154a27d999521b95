//! Network1: addresses, TAPs and published ports.

use std::net::Ipv4Addr;

use zbus::proxy;
use zbus::wire::OwnedFd;

use crate::error::{Error, Result};
use crate::guest::Address;
use crate::options::{Dict, DictBuilder, Options};

pub const NAME: &str = "dev.banger.Network1";
pub const PATH: &str = "/dev/banger/Network1";
pub const MANAGER: &str = "dev.banger.Network1.Manager";

/// What marks a link as banger's, where others have links too (`ip -d link`: alias).
pub const MARK: &str = "banger";

/// What a VM is given for its network, for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub dns: Vec<Ipv4Addr>,
    pub mac: [u8; 6],
    pub mtu: u16,
    /// What the VM's name resolves to on the host.
    pub host_address: Option<Ipv4Addr>,
}

/// What of it the guest must know.
impl From<&Lease> for Address {
    fn from(lease: &Lease) -> Self {
        Address {
            mac: lease.mac,
            ipv4: lease.address.octets(),
            prefix: lease.prefix,
            gateway: lease.gateway.octets(),
            dns: lease.dns.iter().map(Ipv4Addr::octets).collect(),
            mtu: lease.mtu,
        }
    }
}

impl Lease {
    pub fn to_dict(&self) -> Dict {
        let dns: Vec<String> = self.dns.iter().map(Ipv4Addr::to_string).collect();
        DictBuilder::default()
            .set("address", self.address.to_string())
            .set("prefix", self.prefix)
            .set("gateway", self.gateway.to_string())
            .set("dns", dns)
            .set("mac", mac_text(self.mac))
            .set("mtu", self.mtu)
            .set_some("host-address", self.host_address.map(|a| a.to_string()))
            .build()
    }

    pub fn from_dict(dict: Dict) -> Result<Self> {
        let address = |s: String| s.parse::<Ipv4Addr>().map_err(|_| Error::internal(format!("{s:?} is no address")));
        let mut options = Options::new(dict)?;
        Ok(Lease {
            address: address(options.require("address")?)?,
            prefix: options.require("prefix")?,
            gateway: address(options.require("gateway")?)?,
            dns: options.require::<Vec<String>>("dns")?.into_iter().map(address).collect::<Result<_>>()?,
            mac: parse_mac(&options.require::<String>("mac")?)?,
            mtu: options.require("mtu")?,
            host_address: options.take::<String>("host-address")?.map(address).transpose()?,
        })
    }
}

/// A MAC as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bad = || Error::internal(format!("{text:?} is no MAC"));
    let bytes: Vec<u8> =
        text.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<std::result::Result<_, _>>().map_err(|_| bad())?;
    bytes.try_into().map_err(|_| bad())
}

/// The network of this host's VMs.
#[proxy(
    interface = "dev.banger.Network1.Manager",
    default_service = "dev.banger.Network1",
    default_path = "/dev/banger/Network1"
)]
pub trait Manager {
    /// Reserves address, MAC and host address for a VM, for as long as it exists. Repeatable: the same lease again.
    /// `options`: `ports as`: ports that will be published on its host address; `nat b`: whether it reaches the
    /// outside (true).
    fn reserve(&self, holder: &str, options: Dict) -> zbus::Result<Dict>;

    /// Makes the holder's TAP, publishes its ports, and hands out the TAP, and the lease as it is now: an address changes
    /// when the network of the host is set to another.
    fn open_tap(&self, holder: &str, options: Dict) -> zbus::Result<(OwnedFd, Dict)>;

    /// Takes the holder's TAP and published ports away; the lease stays. Repeatable.
    fn close_tap(&self, holder: &str, options: Dict) -> zbus::Result<()>;

    /// Lets the holder reach the outside from now on, or nothing but who talks to it from this host. Repeatable.
    fn set_nat(&self, holder: &str, nat: bool, options: Dict) -> zbus::Result<()>;

    /// Ends a lease. Repeatable.
    fn release(&self, holder: &str, options: Dict) -> zbus::Result<()>;

    /// Holders of leases.
    fn holders(&self) -> zbus::Result<Vec<String>>;

    /// Looks again whether VMs can have a network here: the sentence that says why not and what cures it, or
    /// nothing.
    fn probe(&self) -> zbus::Result<String>;

    /// What VMs' networks lack here, each as a sentence that says what helps.
    fn notes(&self) -> zbus::Result<Vec<String>>;

    /// Puts back everything that was changed on this host, which no VM may need any more: bridge, rules, switches of
    /// the kernel, what was said to other firewalls. For the end of an installation: until the service is started anew, no
    /// TAP is opened any more. Says what was undone. Repeatable.
    fn retract(&self, options: Dict) -> zbus::Result<Vec<String>>;

    /// `rootless`: a user and network namespace of the user's own; `bridge`: a bridge of the host.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> zbus::Result<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_the_bus() {
        let lease = Lease {
            address: Ipv4Addr::new(172, 16, 0, 2),
            prefix: 24,
            gateway: Ipv4Addr::new(172, 16, 0, 1),
            dns: vec![Ipv4Addr::new(10, 0, 2, 3)],
            mac: [2, 0, 0, 0xab, 0, 1],
            mtu: 1500,
            host_address: Some(Ipv4Addr::new(127, 77, 0, 2)),
        };
        assert_eq!(Lease::from_dict(lease.to_dict()), Ok(lease));
        assert!(parse_mac("02:00").is_err() && parse_mac("zz:00:00:00:00:00").is_err());
    }
}
