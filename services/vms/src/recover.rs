//! Recovery: collect facts, classify each record, and let the ordinary life go on from there. What no record knows
//! is given back; what cannot be proved stale stays.

use banger_bus::effects::blocking;
use banger_schemas::error::Result;
use banger_schemas::keeper::Phase;

use crate::actor::Tools;
use crate::guest::sentence;
use crate::host::client;
use crate::lifecycle::{After, State};
use crate::peers::is_missing;
use crate::record::{Intent, VmRecord};

/// All records that can be read. One that cannot is told of and left where it is.
pub(crate) async fn records(tools: &Tools) -> Result<Vec<VmRecord>> {
    let mut whole = Vec::new();
    for (key, record) in tools.records.all::<VmRecord>().await? {
        match record {
            Ok(record) => whole.push(record),
            Err(error) => tracing::error!(key, %error, "a VM's record is not understood: the VM is left alone"),
        }
    }
    Ok(whole)
}

/// What a keeper says of itself, if there is one.
async fn keeper_phase(tools: &Tools, record: &VmRecord) -> Option<Phase> {
    let keeper = tools.keepers.connect(&record.id).await.ok()?;
    keeper.watch().await.ok()?;
    let status = tokio::time::timeout(std::time::Duration::from_secs(5), keeper.next_status()).await;
    status.ok()?.ok()?.map(|status| status.phase)
}

/// The state that a VM of an earlier life goes on from.
pub(crate) async fn classify(tools: &Tools, record: &VmRecord) -> State {
    let phase = keeper_phase(tools, record).await;
    let state = decide(record.intent, phase.as_ref(), client_lives(record));
    tracing::info!(vm = %record.id, name = %record.name, intent = ?record.intent, ?phase, state = state.as_str(), "found");
    state
}

/// Whether the client that the VM is leased to, if any, is still there.
fn client_lives(record: &VmRecord) -> bool {
    record.client.as_ref().is_none_or(|owner| client::reopen(owner).is_ok())
}

/// Pure: the record's intent, the keeper's word, the client's life.
fn decide(intent: Intent, phase: Option<&Phase>, client_lives: bool) -> State {
    let up = matches!(phase, Some(Phase::Booting | Phase::Kernel | Phase::Agent));
    let dead = || {
        banger_schemas::error::Error::new(
            banger_schemas::error::Kind::Guest,
            "the VM had ended when banger came back".to_owned(),
        )
    };
    match (intent, up) {
        // The record's client is gone, or the VM was on its way out: go on with that.
        (Intent::Remove, true) => State::Ending { then: After::Removed },
        (Intent::Remove | Intent::Create, false) => State::Removing { why: None },
        (_, true) if !client_lives => State::Ending { then: After::Removed },
        (_, false) if !client_lives => State::Removing { why: None },
        // A keeper without a launch ends by itself.
        (Intent::Create, true) => State::Ending { then: After::Removed },
        (Intent::Run, true) => State::Booting,
        (Intent::Run, false) => State::Settling { then: After::Stopped { why: Some(dead()) } },
        (Intent::Stop | Intent::Stopped, true) => State::Ending { then: After::Stopped { why: None } },
        (Intent::Stop, false) => State::Settling { then: After::Stopped { why: None } },
        (Intent::Stopped, false) => State::Stopped { why: None },
    }
}

/// Gives back what peers and folders hold for VMs that no record knows.
pub(crate) async fn sweep(tools: &Tools) {
    // Read first what is held, then what is known: a VM that is made in between is known.
    let held = tools.peers.holders().await;
    let known = match tools.records.all::<VmRecord>().await {
        Ok(known) => known.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        Err(error) => {
            tracing::error!(%error, "nothing is swept: the records cannot be read");
            return;
        }
    };
    match held {
        Ok(held) => {
            for holder in held.iter().filter(|h| !known.iter().any(|k| k == h.as_str())) {
                tracing::warn!(vm = %holder, "held by peers, known to no record: given back");
                if let Err(error) = tools.peers.release(holder).await {
                    tracing::warn!(vm = %holder, %error, "not given back");
                }
            }
        }
        Err(error) if is_missing(&error) => tracing::info!(%error, "peers are not there yet: nothing is swept"),
        Err(error) => tracing::warn!(error = sentence(&error.message), "nothing is swept"),
    }
    let keepers = tools.keepers.clone();
    let swept = blocking(move || {
        for folder in keepers.folders().iter().filter(|f| !known.iter().any(|k| k == f.as_str())) {
            keepers.forget(folder)?;
        }
        Ok(())
    });
    if let Err(error) = swept.await {
        tracing::warn!(%error, "a folder is left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_adopted_and_what_was_half_made_is_undone() {
        let agent = Phase::Agent;
        assert_eq!(decide(Intent::Run, Some(&agent), true), State::Booting);
        assert_eq!(decide(Intent::Run, None, true).as_str(), "stopping");
        assert_eq!(decide(Intent::Create, None, true), State::Removing { why: None });
        assert_eq!(decide(Intent::Stopped, None, true), State::Stopped { why: None });
        assert_eq!(decide(Intent::Remove, Some(&agent), true), State::Ending { then: After::Removed });
    }

    #[test]
    fn a_vm_whose_client_is_gone_is_removed_whatever_it_did() {
        for intent in [Intent::Create, Intent::Stopped, Intent::Run, Intent::Stop, Intent::Remove] {
            assert_eq!(decide(intent, None, false), State::Removing { why: None }, "{intent:?}");
            assert_eq!(decide(intent, Some(&Phase::Kernel), false).as_str(), "deleting", "{intent:?}");
        }
    }
}
