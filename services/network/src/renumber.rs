//! From the network that a host's machines have to the one that its settings want: when no machine is in it. Nobody's
//! machine loses its network for a line in a file.

use std::collections::BTreeSet;

use banger_bus::Records;
use banger_bus::records::Record;
use banger_bus::settings::{self, Settings};
use banger_schemas::VmId;
use banger_schemas::error::Result;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::host::bridge::Config;
use crate::host::{Bridge, Host};
use crate::plan::Plan;
use crate::record::LeaseRecord;

/// What is made on this host, or was made last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InForce {
    bridge: String,
    net: Ipv4Net,
}

impl Record for InForce {
    const TABLE: &'static str = "network";
    const VERSION: u32 = 1;
}

const KEY: &str = "host";

impl InForce {
    fn of(plan: &Plan) -> Self {
        InForce { bridge: plan.bridge.clone(), net: plan.net }
    }

    fn plan(&self, wanted: &Plan) -> Plan {
        Plan { bridge: self.bridge.clone(), net: self.net, ..wanted.clone() }
    }
}

/// The network to go on with: the one that is set, for which the old one is taken away, or the old one and why.
pub(crate) async fn settle(settings: &Settings, config: &Config, records: &Records) -> Result<(Plan, Option<String>)> {
    let set = Plan::set(settings)?;
    let recorded = records.all::<InForce>().await?.into_iter().find_map(|(_, in_force)| in_force.ok());
    // A service that wrote no record had no other network.
    let old = recorded.clone().unwrap_or_else(|| InForce::of(&Plan::of_the_host())).plan(&set);
    // A mistake in the file is told of elsewhere, and is nobody's wish for the network of a host without one.
    let wanted = if settings::are_mistaken() { old.clone() } else { set };
    if old == wanted {
        // A default that changes one day is not taken for what was made before.
        if recorded.is_none() {
            records.put(KEY, &InForce::of(&wanted)).await?;
        }
        return Ok((wanted, None));
    }
    let obstacle = match leave(&old, &wanted, config, records).await {
        Ok(None) => {
            tracing::info!(bridge = wanted.bridge, net = %wanted.net, "the network of machines has changed");
            records.put(KEY, &InForce::of(&wanted)).await?;
            return Ok((wanted, None));
        }
        Ok(Some(obstacle)) => obstacle,
        Err(error) => Obstacle { why: format!("it cannot be taken away ({})", error.message), cure: "mend it" },
    };
    let note = format!(
        "machines' network is still {} at {}, and not {} at {} as is set, since {}: {}, then 'sudo systemctl restart \
         banger-network'",
        old.net.trunc(),
        old.bridge,
        wanted.net.trunc(),
        wanted.bridge,
        obstacle.why,
        obstacle.cure
    );
    Ok((old, Some(note)))
}

/// Why a network has to stay, and what helps.
struct Obstacle {
    why: String,
    cure: &'static str,
}

/// Takes the old network away, and closes leases that say they are open; or why it has to stay.
async fn leave(old: &Plan, wanted: &Plan, config: &Config, records: &Records) -> Result<Option<Obstacle>> {
    let leases = records.all::<LeaseRecord>().await?;
    let host = Bridge::new(old.clone(), config.clone(), records.clone());
    let devices: BTreeSet<String> = host.taps().await?.iter().map(VmId::to_string).collect();
    let open = |lease: &LeaseRecord, vm: &String| lease.open && devices.contains(vm);
    let running = leases.iter().filter(|(vm, lease)| lease.as_ref().is_ok_and(|lease| open(lease, vm))).count();
    if running > 0 {
        return Ok(Some(Obstacle {
            why: format!("{running} machines run in it"),
            cure: "stop them ('banger vm stop')",
        }));
    }
    if leases.len() > wanted.size() as usize {
        let (have, room) = (leases.len(), wanted.size());
        let why = format!("there are {have} machines and the other has room for {room}");
        return Ok(Some(Obstacle { why, cure: "delete some" }));
    }
    for undone in host.down().await? {
        tracing::info!(undone, "the network of machines changes");
    }
    for (vm, lease) in leases {
        if let Ok(lease) = lease
            && lease.open
        {
            records.put(vm, &LeaseRecord { open: false, ..lease }).await?;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod golden {
    use super::*;
    use banger_bus::records::{decode, encode};

    #[test]
    fn the_record_is_read_and_written_as_ever() {
        const STORED: &str = r#"{"v":1,"record":{"bridge":"br-banger","net":"172.16.0.1/24"}}"#;
        let record: InForce = decode(KEY, STORED.as_bytes()).unwrap();
        assert_eq!(record, InForce::of(&Plan::of_the_host()));
        assert_eq!(encode(&record).unwrap(), STORED.as_bytes());
    }
}
