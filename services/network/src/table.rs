//! The table of leases: what each VM has, and the rules that follow from it. Pure but for reading its records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use banger_bus::Records;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::network::Lease;
use banger_schemas::vms::Port;

use crate::plan::{MTU, Plan, Uplink};
use crate::pool::{self, Addresses};
use crate::record::{Last, LeaseRecord};
use crate::render::{Guest, Protocol, Publication, Reach, Ruleset};

/// All leases.
#[derive(Debug)]
pub(crate) struct Table {
    plan: Plan,
    addresses: Addresses,
    leases: BTreeMap<VmId, LeaseRecord>,
}

impl From<pool::PoolError> for Error {
    fn from(error: pool::PoolError) -> Error {
        Error::new(Kind::NoSpace, error.to_string())
    }
}

/// The address on the host, and the internal port that each published port goes through.
type Outside = (Option<Ipv4Addr>, Vec<(Port, u16)>);

impl Table {
    /// The table as the records have it. A lease that cannot be read is told of, and its address stays unknown.
    pub(crate) async fn restore(plan: Plan, records: &Records) -> Result<Self> {
        let mut leases = BTreeMap::new();
        for (key, record) in records.all::<LeaseRecord>().await? {
            match (key.parse::<VmId>(), record) {
                (Ok(vm), Ok(record)) => drop(leases.insert(vm, record)),
                (_, record) => tracing::error!(key, error = ?record.err(), "a lease is not understood"),
            }
        }
        let last = records.all::<Last>().await?.into_iter().find_map(|(_, last)| last.ok()).map(|last| last.0);
        let last = last.filter(|last| plan.net.contains(last));
        let (held, moved): (Vec<_>, Vec<_>) =
            leases.iter().partition(|(_, lease)| lease.open || plan.net.contains(&lease.address));
        let held = held.into_iter().map(|(vm, lease)| (vm.clone(), lease.address));
        let addresses = Addresses::restore(&plan, held, last).map_err(|e| Error::new(Kind::Corrupt, e.to_string()))?;
        let moved: Vec<VmId> = moved.into_iter().map(|(vm, _)| vm.clone()).collect();
        let mut table = Table { plan, addresses, leases };
        for vm in moved {
            let (lease, last) = table.renumber(&vm)?;
            records.put("last", &last).await?;
            records.put(vm.as_str(), &lease).await?;
        }
        Ok(table)
    }

    /// Another address for a VM that had one of another network.
    fn renumber(&mut self, vm: &VmId) -> Result<(LeaseRecord, Last)> {
        let address = self.addresses.lease(vm)?;
        if let Some(lease) = self.leases.get_mut(vm) {
            lease.address = address;
            if self.plan.uplink == Uplink::Host {
                lease.host_address = Some(address);
            }
        }
        Ok((self.get(vm)?, Last(self.addresses.last())))
    }

    /// The VM's lease: the one it has, or a new one. `usable` tells whether the host lets us listen at an address.
    pub(crate) fn reserve(
        &mut self,
        vm: &VmId,
        uid: u32,
        ports: &[Port],
        nat: bool,
        usable: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<(LeaseRecord, Last)> {
        if !self.leases.contains_key(vm) {
            let hosts: BTreeSet<u16> = ports.iter().map(|p| p.host).collect();
            if hosts.len() != ports.len() {
                return Err(Error::invalid("a port of the host can be published only once"));
            }
            let (outside, ports) = match self.plan.uplink {
                Uplink::Slirp => self.outside(vm, uid, ports, usable)?,
                // The guest's own address can be reached, and no port has to lead through anything.
                Uplink::Host => (None, ports.iter().map(|port| (*port, 0)).collect()),
            };
            let address = self.addresses.lease(vm)?;
            let host_address = if self.plan.uplink == Uplink::Host { Some(address) } else { outside };
            self.leases.insert(vm.clone(), LeaseRecord { address, host_address, ports, open: false, nat });
        }
        self.get(vm).map(|lease| (lease, Last(self.addresses.last())))
    }

    /// A loopback address for the VM, and a port of the namespace's own for each that it publishes there.
    fn outside(&self, vm: &VmId, uid: u32, ports: &[Port], usable: impl Fn(Ipv4Addr) -> bool) -> Result<Outside> {
        let taken: BTreeSet<Ipv4Addr> = self.leases.values().filter_map(|l| l.host_address).collect();
        let host_address = pool::loopback(uid, vm).find(|a| !taken.contains(a) && usable(*a));
        if !ports.is_empty() && host_address.is_none() {
            return Err(Error::new(
                Kind::NotSupported,
                "ports cannot be published: this host lets nobody listen at other loopback addresses than 127.0.0.1",
            ));
        }
        let mut internal: Vec<u16> = self.leases.values().flat_map(|l| l.ports.iter().map(|p| p.1)).collect();
        let mut published = Vec::new();
        for port in ports {
            let through = pool::internal_port(internal.iter().copied())?;
            internal.push(through);
            published.push((*port, through));
        }
        Ok((host_address, published))
    }

    pub(crate) fn get(&self, vm: &VmId) -> Result<LeaseRecord> {
        let missing = || Error::new(Kind::NotFound, format!("VM {vm} has no lease"));
        self.leases.get(vm).cloned().ok_or_else(missing)
    }

    /// Notes whether the VM's TAP is to exist; the lease as it is then.
    pub(crate) fn set_open(&mut self, vm: &VmId, open: bool) -> Result<LeaseRecord> {
        if let Some(lease) = self.leases.get_mut(vm) {
            lease.open = open;
        }
        self.get(vm)
    }

    /// Notes whether the VM reaches the outside; the lease as it is then.
    pub(crate) fn set_nat(&mut self, vm: &VmId, nat: bool) -> Result<LeaseRecord> {
        if let Some(lease) = self.leases.get_mut(vm) {
            lease.nat = nat;
        }
        self.get(vm)
    }

    pub(crate) fn release(&mut self, vm: &VmId) {
        self.addresses.release(vm);
        self.leases.remove(vm);
    }

    pub(crate) fn holders(&self) -> Vec<String> {
        self.leases.keys().map(VmId::to_string).collect()
    }

    /// VMs whose TAPs are to exist.
    pub(crate) fn known(&self) -> BTreeSet<VmId> {
        self.leases.iter().filter(|(_, lease)| lease.open).map(|(vm, _)| vm.clone()).collect()
    }

    /// A lease as the guest is told of it.
    pub(crate) fn lease(&self, vm: &VmId, record: &LeaseRecord) -> Lease {
        Lease {
            address: record.address,
            prefix: self.plan.net.prefix_len(),
            gateway: self.plan.gateway(),
            dns: vec![self.plan.dns()],
            mac: pool::mac(vm),
            mtu: MTU,
            host_address: record.host_address,
        }
    }

    /// The rules that follow: all open VMs and what they publish. The host's addresses are put in when they are
    /// applied.
    pub(crate) fn rules(&self) -> Ruleset {
        let open = || self.leases.iter().filter(|(_, lease)| lease.open);
        let guests = open().map(|(vm, lease)| guest(vm, lease)).collect();
        let publications = open().flat_map(|(_, lease)| publications(lease)).collect();
        Ruleset { guests, publications, ..Ruleset::default() }
    }
}

/// Whom the rules know by a lease.
pub(crate) fn guest(vm: &VmId, lease: &LeaseRecord) -> Guest {
    let reach = if lease.nat { Reach::Internet } else { Reach::Nothing };
    Guest { vm: vm.clone(), mac: pool::mac(vm), address: lease.address, reach }
}

/// What a lease publishes.
pub(crate) fn publications(lease: &LeaseRecord) -> Vec<Publication> {
    let Some(host) = lease.host_address else { return Vec::new() };
    let publication = |(port, internal): &(Port, u16)| Publication {
        protocol: Protocol::Tcp,
        outside: SocketAddrV4::new(host, port.host),
        internal: *internal,
        guest: SocketAddrV4::new(lease.address, port.guest),
    };
    lease.ports.iter().map(publication).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str) -> VmId {
        name.parse().unwrap()
    }

    fn table(plan: Plan) -> Table {
        Table { addresses: Addresses::new(&plan), plan, leases: BTreeMap::new() }
    }

    #[test]
    fn a_lease_is_the_same_however_often_it_is_asked_for() {
        let mut table = table(Plan::rootless());
        let ports = [Port { host: 8080, guest: 80 }];
        let (first, _) = table.reserve(&vm("aaaaaaaaaa"), 1000, &ports, true, |_| true).unwrap();
        let (again, _) = table.reserve(&vm("aaaaaaaaaa"), 1000, &[], true, |_| true).unwrap();
        let (other, last) = table.reserve(&vm("bbbbbbbbbb"), 1000, &ports, true, |_| true).unwrap();
        assert_eq!(first, again);
        assert_ne!((first.address, first.host_address), (other.address, other.host_address));
        assert_ne!(first.ports[0].1, other.ports[0].1);
        assert_eq!(last.0, other.address);
    }

    #[tokio::test]
    async fn leases_of_another_network_are_given_addresses_of_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("network.redb")).unwrap();
        let lease = |address: &str, open| {
            let address = address.parse().unwrap();
            LeaseRecord { address, host_address: Some(address), ports: vec![], open, nat: false }
        };
        let put = async |vm: &str, lease: &LeaseRecord| records.put(vm, lease).await.unwrap();
        put("aaaaaaaaaa", &lease("10.7.0.2", true)).await;
        put("bbbbbbbbbb", &lease("172.16.0.2", false)).await;
        put("cccccccccc", &lease("172.16.0.9", false)).await;
        records.put("last", &Last("172.16.0.9".parse().unwrap())).await.unwrap();
        let plan = Plan { net: "10.7.0.1/29".parse().unwrap(), ..Plan::of_the_host() };
        let expected = [lease("10.7.0.2", true), lease("10.7.0.3", false), lease("10.7.0.4", false)];
        for _ in 0..2 {
            let table = Table::restore(plan.clone(), &records).await.unwrap();
            assert_eq!(table.leases.values().cloned().collect::<Vec<_>>(), expected);
        }
        // One that is open is somebody's who runs: it is not taken away, and is not of this network.
        put("dddddddddd", &lease("172.16.0.3", true)).await;
        assert_eq!(Table::restore(plan, &records).await.unwrap_err().kind, Kind::Corrupt);
    }

    #[test]
    fn only_open_vms_are_in_the_rules() {
        let mut table = table(Plan::rootless());
        table.reserve(&vm("aaaaaaaaaa"), 0, &[Port { host: 1024, guest: 1 }], true, |_| true).unwrap();
        assert!(table.rules().guests.is_empty() && table.rules().publications.is_empty());
        table.set_open(&vm("aaaaaaaaaa"), true).unwrap();
        assert_eq!((table.rules().guests.len(), table.rules().publications.len()), (1, 1));
    }

    #[test]
    fn the_same_host_port_twice_is_refused_and_leaves_no_lease() {
        let mut table = table(Plan::rootless());
        let twice = [Port { host: 1, guest: 1 }, Port { host: 1, guest: 2 }];
        assert!(table.reserve(&vm("aaaaaaaaaa"), 0, &twice, true, |_| true).is_err());
        assert!(table.holders().is_empty());
    }

    #[test]
    fn without_loopback_addresses_a_vm_has_a_network_and_no_published_ports() {
        let mut table = table(Plan::rootless());
        let (record, _) = table.reserve(&vm("aaaaaaaaaa"), 0, &[], true, |_| false).unwrap();
        assert_eq!(record.host_address, None);
        let port = [Port { host: 1024, guest: 1 }];
        assert_eq!(table.reserve(&vm("bbbbbbbbbb"), 0, &port, true, |_| false).unwrap_err().kind, Kind::NotSupported);
    }

    #[test]
    fn on_a_host_a_guest_is_reached_at_its_own_address() {
        let mut table = table(Plan::of_the_host());
        let port = [Port { host: 8080, guest: 80 }];
        let (record, _) = table.reserve(&vm("aaaaaaaaaa"), 1000, &port, true, |_| false).unwrap();
        assert_eq!(record.host_address, Some(record.address));
        let lease = table.lease(&vm("aaaaaaaaaa"), &record);
        assert_eq!((lease.host_address, lease.dns), (Some(record.address), vec![lease.gateway]));
        table.set_open(&vm("aaaaaaaaaa"), true).unwrap();
        let published = table.rules().publications[0];
        assert_eq!(
            (published.outside.to_string(), published.guest.to_string()),
            ("172.16.0.2:8080".into(), "172.16.0.2:80".into())
        );
    }

    #[test]
    fn without_nat_a_guest_reaches_nothing() {
        let mut table = table(Plan::rootless());
        table.reserve(&vm("aaaaaaaaaa"), 0, &[], false, |_| true).unwrap();
        table.set_open(&vm("aaaaaaaaaa"), true).unwrap();
        assert_eq!(table.rules().guests[0].reach, Reach::Nothing);
        table.set_nat(&vm("aaaaaaaaaa"), true).unwrap();
        assert_eq!(table.rules().guests[0].reach, Reach::Internet);
        assert!(table.set_nat(&vm("bbbbbbbbbb"), true).is_err());
    }
}
