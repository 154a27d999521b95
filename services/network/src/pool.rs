//! What is given to VMs: addresses, MACs, loopback addresses, internal ports. Pure; what is taken is told from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use banger_schemas::VmId;

use crate::plan::Plan;

/// Ports of the namespace's own address that publications go through: below the kernel's ephemeral ports, which
/// masquerading uses.
const INTERNAL: RangeInclusive<u16> = 20000..=32000;

/// Nothing is left to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("all {0} addresses of the VM network are leased; delete a VM")]
    NoAddress(usize),
    #[error("all {} internal ports are in use; publish fewer ports", INTERNAL.count())]
    NoPort,
    #[error("{0} is no address of the VM network")]
    Foreign(Ipv4Addr),
    #[error("{0} is leased twice")]
    Twice(Ipv4Addr),
}

/// Guests' addresses: one a VM, for as long as it exists. The next lease is looked for behind the last one, so an
/// address that was given back rests for a whole round: ARP caches, DNS answers and known_hosts lines go stale first.
#[derive(Debug, Clone)]
pub struct Addresses {
    guests: RangeInclusive<u32>,
    gateway: u32,
    leases: BTreeMap<VmId, u32>,
    taken: BTreeSet<u32>,
    last: u32,
}

impl Addresses {
    pub fn new(plan: &Plan) -> Self {
        let (first, last) = plan.guests();
        Addresses {
            guests: first.to_bits()..=last.to_bits(),
            gateway: plan.gateway().to_bits(),
            leases: BTreeMap::new(),
            taken: BTreeSet::new(),
            last: last.to_bits(),
        }
    }

    /// The pool as records have it: leases, and the last address that was given (if it is known).
    pub fn restore(
        plan: &Plan,
        leases: impl IntoIterator<Item = (VmId, Ipv4Addr)>,
        last: Option<Ipv4Addr>,
    ) -> Result<Self, PoolError> {
        let mut pool = Addresses::new(plan);
        if let Some(last) = last {
            pool.last = pool.own(last)?;
        }
        for (vm, address) in leases {
            let own = pool.own(address)?;
            if !pool.taken.insert(own) {
                return Err(PoolError::Twice(address));
            }
            pool.leases.insert(vm, own);
        }
        Ok(pool)
    }

    /// The VM's address: the one it has, or the next free one.
    pub fn lease(&mut self, vm: &VmId) -> Result<Ipv4Addr, PoolError> {
        if let Some(address) = self.get(vm) {
            return Ok(address);
        }
        let behind = self.last.saturating_add(1)..=*self.guests.end();
        let mut round = behind.chain(self.guests.clone());
        let free = round.find(|address| *address != self.gateway && !self.taken.contains(address));
        let free = free.ok_or(PoolError::NoAddress(self.taken.len()))?;
        self.last = free;
        self.taken.insert(free);
        self.leases.insert(vm.clone(), free);
        Ok(Ipv4Addr::from_bits(free))
    }

    /// Ends a lease; the address it was.
    pub fn release(&mut self, vm: &VmId) -> Option<Ipv4Addr> {
        let address = self.leases.remove(vm)?;
        self.taken.remove(&address);
        Some(Ipv4Addr::from_bits(address))
    }

    pub fn get(&self, vm: &VmId) -> Option<Ipv4Addr> {
        self.leases.get(vm).copied().map(Ipv4Addr::from_bits)
    }

    /// The last address given, to be recorded beside the leases.
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.last)
    }

    fn own(&self, address: Ipv4Addr) -> Result<u32, PoolError> {
        let bits = address.to_bits();
        if self.guests.contains(&bits) && bits != self.gateway { Ok(bits) } else { Err(PoolError::Foreign(address)) }
    }
}

/// The VM's MAC: locally administered, unicast, the same for its whole life.
pub fn mac(vm: &VmId) -> [u8; 6] {
    let [a, b, c, d, e, ..] = hash(vm.as_str().as_bytes()).to_be_bytes();
    [2, a, b, c, d, e]
}

/// Loopback addresses for a VM, best first: in a range of the user's (127.64 to 127.191), at a place of the VM's.
/// Another user may have the same range, so each is tried before use.
pub fn loopback(uid: u32, vm: &VmId) -> impl Iterator<Item = Ipv4Addr> {
    let range = 64 + (hash(&uid.to_be_bytes()) % 128) as u8;
    let [start_c, start_d, ..] = hash(vm.as_str().as_bytes()).to_le_bytes();
    // An odd step visits every octet once.
    (0..=255u8).map(move |n| {
        let d = start_d.wrapping_add(n.wrapping_mul(37));
        // Not .0 and .255: tools take them for networks.
        Ipv4Addr::new(127, range, start_c.wrapping_add(n), d.clamp(1, 254))
    })
}

/// The lowest internal port that no publication uses.
pub fn internal_port(taken: impl IntoIterator<Item = u16>) -> Result<u16, PoolError> {
    let taken: BTreeSet<u16> = taken.into_iter().collect();
    INTERNAL.into_iter().find(|port| !taken.contains(port)).ok_or(PoolError::NoPort)
}

/// FNV-1a with a last mixing step, so that short keys differ in every byte. Fixed for ever: MACs come from it.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vm(n: u8) -> VmId {
        VmId::from_random([n, n / 32, n, n / 32, 0, 0, 0, 0, 0, 0])
    }

    fn new() -> Addresses {
        Addresses::new(&Plan::rootless())
    }

    #[test]
    fn leases_are_stable_and_rest_after_use() {
        let mut pool = new();
        let first = pool.lease(&vm(0)).unwrap();
        assert_eq!(first, Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(pool.lease(&vm(0)), Ok(first));
        assert_eq!(pool.release(&vm(0)), Some(first));
        assert_eq!(pool.release(&vm(0)), None);
        for n in 3..=254u8 {
            let next = pool.lease(&vm(1)).unwrap();
            assert_eq!(next, Ipv4Addr::new(172, 16, 0, n));
            pool.release(&vm(1));
        }
        assert_eq!(pool.lease(&vm(2)), Ok(first));
    }

    #[test]
    fn a_restored_pool_goes_on_where_it_was() {
        let mut pool = new();
        pool.lease(&vm(0)).unwrap();
        pool.lease(&vm(1)).unwrap();
        let gone = pool.release(&vm(1)).unwrap();
        let mut again =
            Addresses::restore(&Plan::rootless(), [(vm(0), pool.get(&vm(0)).unwrap())], Some(pool.last())).unwrap();
        assert_ne!(again.lease(&vm(3)).unwrap(), gone);
    }

    #[test]
    fn a_wider_network_holds_more_and_spares_its_gateway() {
        let plan = Plan { net: "172.16.2.1/20".parse().unwrap(), ..Plan::of_the_host() };
        let mut pool = Addresses::new(&plan);
        let vm =
            |n: u16| VmId::from_random([0, (n % 32) as u8, (n / 32 % 32) as u8, (n / 1024) as u8, 0, 0, 0, 0, 0, 0]);
        let all: BTreeSet<Ipv4Addr> = (0..4093).map(|n| pool.lease(&vm(n)).unwrap()).collect();
        assert_eq!((all.len(), all.contains(&plan.gateway())), (4093, false));
        assert_eq!(pool.lease(&vm(4093)), Err(PoolError::NoAddress(4093)));
    }

    #[test]
    fn damaged_records_are_refused() {
        let at = |n| Ipv4Addr::new(172, 16, 0, n);
        let restore =
            |leases: &[(VmId, Ipv4Addr)]| Addresses::restore(&Plan::rootless(), leases.to_vec(), None).map(drop);
        assert_eq!(restore(&[(vm(0), at(1))]), Err(PoolError::Foreign(at(1))));
        assert_eq!(restore(&[(vm(0), Ipv4Addr::LOCALHOST)]), Err(PoolError::Foreign(Ipv4Addr::LOCALHOST)));
        assert_eq!(restore(&[(vm(0), at(9)), (vm(1), at(9))]), Err(PoolError::Twice(at(9))));
    }

    #[test]
    fn golden_values() {
        let vm = "aaaaaaaaaa".parse().unwrap();
        assert_eq!(mac(&vm), [2, 43, 53, 35, 60, 248]);
        let first: Vec<Ipv4Addr> = loopback(1000, &vm).take(2).collect();
        assert_eq!(first, [Ipv4Addr::new(127, 166, 78, 213), Ipv4Addr::new(127, 166, 79, 250)]);
    }

    #[test]
    fn internal_ports_are_given_once() {
        assert_eq!(internal_port([]), Ok(20000));
        assert_eq!(internal_port([20000, 20001, 5]), Ok(20002));
        assert_eq!(internal_port(INTERNAL), Err(PoolError::NoPort));
    }

    proptest! {
        #[test]
        fn no_address_has_two_holders(steps in prop::collection::vec((any::<bool>(), 0u8..40), 0..400)) {
            let mut pool = new();
            let mut model: BTreeMap<VmId, Ipv4Addr> = BTreeMap::new();
            for (lease, n) in steps {
                if lease {
                    let address = pool.lease(&vm(n)).unwrap();
                    let holders = model.iter().filter(|(holder, a)| **a == address && **holder != vm(n)).count();
                    prop_assert_eq!(holders, 0);
                    model.insert(vm(n), address);
                } else {
                    prop_assert_eq!(pool.release(&vm(n)), model.remove(&vm(n)));
                }
            }
        }

        #[test]
        fn loopback_addresses_stay_in_the_users_range(uid: u32, random: [u8; 10]) {
            let all: BTreeSet<Ipv4Addr> = loopback(uid, &VmId::from_random(random)).collect();
            prop_assert_eq!(all.len(), 256);
            let range = all.first().unwrap().octets()[1];
            prop_assert!((64..192).contains(&range));
            for address in all {
                let [net, b, _, d] = address.octets();
                prop_assert!(net == 127 && b == range && d != 0 && d != 255);
            }
        }
    }
}
