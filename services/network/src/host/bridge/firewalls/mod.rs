//! Beside other firewalls. An `accept` of ours does not beat another table's `drop`, so where one drops VMs' packets it
//! is told to let them pass: at the place that it keeps for others, with a comment, recorded before, put back when it
//! is lost and taken back by `undo`. Nothing else of theirs is touched.
//!
//! What VMs may reach is decided in our own table, before or after; here everything of the bridge may pass.

use std::path::Path;

use banger_bus::Records;
use banger_bus::records::Record;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::host::error::recorded;
use crate::host::{Error, nft};
use judge::{Chain, Place, Verdict};

mod firewalld;
mod judge;

/// There when somebody has used the kernel's older packet filter since the boot, which nft does not know.
const OLD_IPTABLES: &str = "/sys/module/iptable_filter";

/// That a firewall was told of the bridge; its key is the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    bridge: String,
}

impl Record for Told {
    const TABLE: &'static str = "told-firewalls";
    const VERSION: u32 = 1;
}

/// Tells those that drop VMs' packets, if they may be told. What stays dropped is a note.
pub(super) async fn ensure(
    config: &Config,
    bridge: &str,
    records: &Records,
    mended: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let chains = match look().await {
        Ok(chains) => chains,
        Err(error) => {
            return Ok(vec![format!("other firewalls' rules cannot be read, and may drop VMs' packets: {error}")]);
        }
    };
    let mut notes = Vec::new();
    if Path::new(OLD_IPTABLES).exists() {
        notes.push(format!(
            "rules of the old iptables are in use, which only root can read: if VMs reach nothing, \
             'sudo iptables-legacy -I FORWARD -i {bridge} -j ACCEPT' and '… -o {bridge} …' let them pass"
        ));
    }
    for verdict in judge::judge(&chains, bridge) {
        match verdict {
            Verdict::Unknown { table, chain } => notes.push(format!(
                "the chain {chain} of the nftables table {table} drops what VMs send and receive: let packets from and \
                 to {bridge} pass there"
            )),
            Verdict::Tell(place) if !config.tell_firewalls => notes.push(format!(
                "{} drops what VMs send and receive, and banger may not tell it otherwise: {}",
                place.tool(),
                place.by_hand(bridge)
            )),
            Verdict::Tell(place) => {
                let again = records.all::<Told>().await.map_err(recorded)?.iter().any(|(key, _)| key == place.key());
                if !again {
                    records.put(place.key(), &Told { bridge: bridge.to_owned() }).await.map_err(recorded)?;
                }
                match tell(config, place, bridge, &chains).await {
                    Ok(true) if again => mended.push(format!("{} lets VMs' packets pass again", place.tool())),
                    Ok(true) => tracing::info!("{} was told to let VMs' packets pass", place.tool()),
                    Ok(false) => {}
                    Err(error) => notes.push(format!(
                        "{} drops what VMs send and receive, and does not listen ({error}): {}",
                        place.tool(),
                        place.by_hand(bridge)
                    )),
                }
            }
        }
    }
    Ok(notes)
}

/// Takes back all that was told.
pub(super) async fn undo(config: &Config, bridge: &str, records: &Records) -> Result<Vec<String>, Error> {
    let told = records.all::<Told>().await.map_err(recorded)?;
    let mut undone = Vec::new();
    if told.is_empty() {
        return Ok(undone);
    }
    let chains = look().await?;
    for (key, told) in told {
        let bridge = told.map_or(bridge.to_owned(), |told| told.bridge);
        if let Some(place) = Place::of_key(&key)
            && untell(config, place, &bridge, &chains).await?
        {
            undone.push(format!("{} knows of {bridge} no more", place.tool()));
        }
        records.delete::<Told>(key).await.map_err(recorded)?;
    }
    Ok(undone)
}

/// Whether it had to be told.
async fn tell(config: &Config, place: Place, bridge: &str, chains: &[Chain]) -> Result<bool, Error> {
    match place.rules(bridge, chains) {
        None => firewalld::trust(bus(config)?, bridge).await,
        Some(commands) if commands.is_empty() => Ok(false),
        Some(commands) => nft::load(&commands).await.map(|()| true),
    }
}

/// Whether there was something to take back.
async fn untell(config: &Config, place: Place, bridge: &str, chains: &[Chain]) -> Result<bool, Error> {
    match place.without_rules(chains) {
        // One that does not run has forgotten.
        None if !judge::has_firewalld(chains) => Ok(false),
        None => firewalld::forget(bus(config)?, bridge).await,
        Some(commands) if commands.is_empty() => Ok(false),
        Some(commands) => nft::load(&commands).await.map(|()| true),
    }
}

fn bus(config: &Config) -> Result<&zbus::Connection, Error> {
    let missing = || Error::Op { op: "asking firewalld".to_owned(), message: "there is no system bus".to_owned() };
    config.bus.as_ref().ok_or_else(missing)
}

/// All chains, those that may matter with their rules.
async fn look() -> Result<Vec<Chain>, Error> {
    let chains = judge::chains(&nft::ask("list chains").await?);
    let mut rules = Vec::new();
    // One by one: of several chains in one breath, nft 1.0.6 finds the last alone.
    for list in judge::worth_reading(&chains) {
        rules.extend(nft::ask(&list).await?);
    }
    Ok(judge::with_rules(chains, &rules))
}

#[cfg(test)]
mod golden {
    use super::*;
    use banger_bus::records::{decode, encode};

    #[test]
    fn the_record_is_read_and_written_as_ever() {
        const STORED: &str = r#"{"v":1,"record":{"bridge":"br-banger"}}"#;
        let record: Told = decode("docker", STORED.as_bytes()).unwrap();
        assert_eq!(encode(&record).unwrap(), STORED.as_bytes());
        for place in [Place::Docker, Place::Ufw, Place::Firewalld] {
            assert_eq!(Place::of_key(place.key()), Some(place));
        }
        assert_eq!((Place::Docker.key(), Place::of_key("x")), ("docker", None));
    }
}
