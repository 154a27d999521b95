//! Recovery: collect facts, classify each record, and let the ordinary life go on from there. What no record knows
//! is given back; what cannot be proved stale stays.

use std::time::Duration;

use banger_bus::effects::within;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Phase;

use crate::actor::Tools;
use crate::guest::sentence;
use crate::lifecycle::{After, State, Way};
use crate::peers::is_missing;
use crate::record::{Intent, VmRecord};

/// A keeper that lives tells its status at once.
const STATUS: Duration = Duration::from_secs(5);

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

/// What there is of a VM's keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// It has ended, and its VMM with it; or its VMM has, and it is about to.
    Gone,
    /// It keeps a VMM.
    Up,
    /// It lives and does not answer.
    Silent,
}

async fn find_keeper(tools: &Tools, record: &VmRecord) -> Keeper {
    let asked = async {
        let keeper = tools.keepers.connect(&record.id).await?;
        keeper.watch().await?;
        let status = within("the VM's keeper", STATUS, keeper.next_status()).await?;
        Ok::<_, Error>(match status.map(|s| s.phase) {
            Some(Phase::Booting | Phase::Kernel | Phase::Agent) => Keeper::Up,
            // Without a launch it ends by itself.
            None | Some(Phase::Idle | Phase::Exited(_)) => Keeper::Gone,
        })
    };
    match asked.await {
        Ok(found) => found,
        Err(error) if error.kind == Kind::Gone => Keeper::Gone,
        // The socket proves nothing; its process does.
        Err(_) => match tools.keepers.runner.may_live(&record.id, record.keeper.as_ref()).await {
            false => Keeper::Gone,
            true => Keeper::Silent,
        },
    }
}

/// The state that a VM of an earlier life goes on from. `making`: whether somebody waits for it to be made, and to be
/// started then.
pub(crate) async fn classify(tools: &Tools, record: &VmRecord, making: Option<bool>) -> State {
    let keeper = find_keeper(tools, record).await;
    let state = decide(record.intent, keeper, client_lives(record), making);
    tracing::info!(vm = %record.id, name = %record.name, intent = ?record.intent, ?keeper, state = state.as_str(), "found");
    state
}

/// Whether the client that the VM is leased to, if any, is still there.
fn client_lives(record: &VmRecord) -> bool {
    record.client.as_ref().is_none_or(|owner| owner.process.alive())
}

/// Pure: the record's intent, what there is of the keeper, the client's life, who waits for its creation.
fn decide(intent: Intent, keeper: Keeper, client_lives: bool, making: Option<bool>) -> State {
    let down = keeper == Keeper::Gone;
    if let (Intent::Create, true, true, Some(start)) = (intent, down, client_lives, making) {
        return State::Creating { start, doomed: false };
    }
    let going = matches!(intent, Intent::Remove | Intent::Create) || !client_lives;
    match (intent, keeper) {
        // What was half made, on its way out, or its client's: goes.
        _ if going && down => State::Removing { why: None },
        _ if going => State::Ending { then: After::Removed },
        (Intent::Run, Keeper::Up) => State::Booting(Way::Boot),
        (Intent::Run, Keeper::Silent) => State::Silent { why: why("the VM's keeper does not answer") },
        (Intent::Run, Keeper::Gone) => {
            State::Settling { then: After::Stopped { why: Some(why("the VM had ended when banger came back")) } }
        }
        (Intent::Stop, Keeper::Gone) => State::Settling { then: After::Stopped { why: None } },
        (_, Keeper::Gone) => State::Stopped { why: None },
        (_, Keeper::Up | Keeper::Silent) => State::Ending { then: After::Stopped { why: None } },
    }
}

fn why(message: &str) -> Error {
    Error::new(Kind::Guest, message)
}

/// Gives back what peers and folders hold for VMs that no record knows.
pub(crate) async fn sweep(tools: &Tools) {
    // Read first what is there, then what is known: a VM that is made in between is known.
    let held = tools.peers.holders().await;
    let kept = tools.keepers.runner.all().await;
    let folders = tools.keepers.folders();
    let known = match tools.records.all::<VmRecord>().await {
        Ok(known) => {
            let makers = tools.templates.makers().into_iter().map(|maker| maker.to_string());
            known.into_iter().map(|(key, _)| key).chain(makers).collect::<Vec<_>>()
        }
        Err(error) => {
            tracing::error!(%error, "nothing is swept: the records cannot be read");
            return;
        }
    };
    let is_unknown = |vm: &&VmId| !known.iter().any(|known| known == vm.as_str());
    match held {
        Ok(held) => {
            for holder in held.iter().filter(is_unknown) {
                tracing::warn!(vm = %holder, "held by peers, known to no record: given back");
                if let Err(error) = tools.peers.release(holder).await {
                    tracing::warn!(vm = %holder, %error, "not given back");
                }
            }
        }
        Err(error) if is_missing(&error) => tracing::info!(%error, "peers are not there yet: nothing is swept"),
        Err(error) => tracing::warn!(error = sentence(&error.message), "nothing is swept"),
    }
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "a keeper may be left");
        Vec::new()
    });
    // Each is of a launch that was never recorded, so nobody owns its VM.
    for vm in kept.iter().filter(is_unknown) {
        tracing::warn!(%vm, "a keeper that no record knows: ended");
        match tools.keepers.runner.kill(vm, None).await {
            Err(error) if error.kind != Kind::Gone => tracing::warn!(%vm, %error, "a keeper may be left"),
            _ => {}
        }
    }
    for vm in folders.iter().filter(is_unknown) {
        if let Err(error) = tools.keepers.forget(vm) {
            tracing::warn!(%error, "a folder is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENTS: [Intent; 5] = [Intent::Create, Intent::Stopped, Intent::Run, Intent::Stop, Intent::Remove];

    #[test]
    fn what_runs_is_adopted_and_what_was_half_made_is_undone() {
        assert_eq!(decide(Intent::Run, Keeper::Up, true, None), State::Booting(Way::Boot));
        assert_eq!(decide(Intent::Run, Keeper::Gone, true, None).as_str(), "stopping");
        assert_eq!(decide(Intent::Create, Keeper::Gone, true, None), State::Removing { why: None });
        // But for somebody who waits for it: that goes on.
        let making = |start| decide(Intent::Create, Keeper::Gone, true, Some(start));
        assert_eq!(making(true), State::Creating { start: true, doomed: false });
        assert_eq!(decide(Intent::Create, Keeper::Gone, false, Some(true)), State::Removing { why: None });
        assert_eq!(decide(Intent::Run, Keeper::Up, true, Some(true)), State::Booting(Way::Boot));
        assert_eq!(decide(Intent::Stopped, Keeper::Gone, true, None), State::Stopped { why: None });
        assert_eq!(decide(Intent::Remove, Keeper::Up, true, None), State::Ending { then: After::Removed });
    }

    #[test]
    fn a_silent_keeper_is_never_taken_for_a_dead_one() {
        for intent in INTENTS {
            let state = decide(intent, Keeper::Silent, true, None);
            assert!(matches!(state, State::Silent { .. } | State::Ending { .. }), "{intent:?}: {state:?}");
        }
        assert!(matches!(decide(Intent::Run, Keeper::Silent, true, None), State::Silent { .. }));
    }

    #[test]
    fn a_vm_whose_client_is_gone_is_removed_whatever_it_did() {
        for intent in INTENTS {
            assert_eq!(decide(intent, Keeper::Gone, false, None), State::Removing { why: None }, "{intent:?}");
            assert_eq!(decide(intent, Keeper::Up, false, None), State::Ending { then: After::Removed }, "{intent:?}");
        }
    }
}
