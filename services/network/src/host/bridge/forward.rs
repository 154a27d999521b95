//! Switches of the kernel: packets are forwarded, and IPv6 is not for the bridge and its ports.
//!
//! Forwarding is the host's as a whole. That of the bridge alone would not do: answers come in by the uplink, which
//! must forward too, and which link that is changes with every cable, radio and tunnel.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use banger_bus::Records;
use banger_bus::process;
use banger_bus::records::Record;
use serde::{Deserialize, Serialize};

use crate::host::Error;
use crate::host::error::recorded;
use crate::host::links::FORWARD;

/// That it was us who switched forwarding on, since this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Switched {
    boot: String,
}

impl Record for Switched {
    const TABLE: &'static str = "switched";
    const VERSION: u32 = 1;
}

const KEY: &str = "ip_forward";

/// Switches forwarding on; whether it was off.
pub(super) async fn on(records: &Records) -> Result<bool, Error> {
    let now = fs::read_to_string(FORWARD).map_err(Error::io(FORWARD))?;
    if now.trim() != "0" {
        return Ok(false);
    }
    records.put(KEY, &Switched { boot: boot()? }).await.map_err(recorded)?;
    fs::write(FORWARD, "1").map_err(Error::io(FORWARD))?;
    Ok(true)
}

/// Switches it off again, if it was on by our doing.
pub(super) async fn undo(records: &Records) -> Result<Vec<String>, Error> {
    let boot = boot()?;
    let all = records.all::<Switched>().await.map_err(recorded)?;
    let mut undone = Vec::new();
    if all.into_iter().any(|(key, switched)| key == KEY && switched.is_ok_and(|switched| switched.boot == boot)) {
        fs::write(FORWARD, "0").map_err(Error::io(FORWARD))?;
        undone.push(format!("{FORWARD} is 0 again"));
    }
    records.delete::<Switched>(KEY).await.map_err(recorded)?;
    Ok(undone)
}

/// Leaves a link without IPv6: guests have none, and the host's link-local address would be one more of its own that
/// they must not reach, and one more that the host says things from (which names it looks for, by LLMNR).
pub(super) fn without_ipv6(link: &str) -> Result<(), Error> {
    let switch = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match fs::write(Path::new(&switch), "1") {
        // A kernel without it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(Error::io(switch)),
    }
}

fn boot() -> Result<String, Error> {
    process::boot().map_err(Error::io("the boot's id"))
}

#[cfg(test)]
mod golden {
    use super::*;
    use banger_bus::records::{decode, encode};

    #[test]
    fn the_record_is_read_and_written_as_ever() {
        const STORED: &str = r#"{"v":1,"record":{"boot":"b"}}"#;
        let record: Switched = decode(KEY, STORED.as_bytes()).unwrap();
        assert_eq!(encode(&record).unwrap(), STORED.as_bytes());
    }
}
