//! `(state, event) → (state, effects)`. An event that means nothing in a state changes nothing: outcomes of what
//! was overtaken arrive late, and that is ordinary.

use banger_schemas::error::Error;

use super::{After, Effect, Event, State, Way};

use Effect::{Abandon, AwaitAgent, Identify, Kill, Launch, Make, Remove, Settle, Shutdown};

const STOPPED: After = After::Stopped { why: None };

/// The next state, and what to do on the way.
pub(crate) fn step(state: State, event: Event) -> (State, Vec<Effect>) {
    match (state, event) {
        (State::Creating { start, doomed: false }, Event::Delete | Event::ClientGone) => {
            (State::Creating { start, doomed: true }, vec![Abandon])
        }
        (State::Creating { doomed: true, .. }, Event::Made(_)) => (State::Removing { why: None }, vec![Remove]),
        (State::Creating { .. }, Event::Made(Err(why))) => (State::Removing { why: Some(why) }, vec![Remove]),
        (State::Creating { start: true, .. }, Event::Made(Ok(()))) => (State::Launching { then: None }, vec![Launch]),
        (State::Creating { start: false, .. }, Event::Made(Ok(()))) => (State::Stopped { why: None }, vec![]),
        (State::Creating { doomed, .. }, Event::Start) => (State::Creating { start: true, doomed }, vec![]),
        (State::Creating { doomed, .. }, Event::Stop { .. }) => (State::Creating { start: false, doomed }, vec![]),

        (State::Stopped { .. }, Event::Start) => (State::Launching { then: None }, vec![Launch]),
        (State::Stopped { .. }, Event::Stop { .. }) => (State::Stopped { why: None }, vec![]),
        (State::Stopped { .. } | State::Stuck { .. }, Event::Delete | Event::ClientGone) => {
            (State::Removing { why: None }, vec![Remove])
        }

        (State::Launching { then: None }, Event::Launched(Ok(way))) => (State::Booting(way), vec![AwaitAgent]),
        (State::Launching { then: Some(then) }, Event::Launched(Ok(_))) => (State::Ending { then }, vec![Kill]),
        (State::Launching { then: None }, Event::Launched(Err(why))) => {
            (State::Settling { then: After::Stopped { why: Some(why) } }, vec![Settle])
        }
        (State::Launching { then: Some(then) }, Event::Launched(Err(_))) => (State::Settling { then }, vec![Settle]),
        (State::Launching { .. }, Event::Stop { .. }) => (State::Launching { then: Some(STOPPED) }, vec![]),
        (State::Launching { .. }, Event::Delete | Event::ClientGone) => {
            (State::Launching { then: Some(After::Removed) }, vec![])
        }

        (State::Booting(way), Event::AgentUp) => (State::Identifying(way), vec![Identify]),
        (State::Silent { .. }, Event::AgentUp) => (State::Identifying(Way::Boot), vec![Identify]),
        (State::Identifying(_), Event::Identified(Ok(()))) => (State::Running, vec![]),
        (State::Identifying(way), Event::Identified(Err(why)))
        | (State::Booting(way) | State::Identifying(way), Event::Late(why)) => {
            (State::Ending { then: way.failed(why) }, vec![Kill])
        }
        (State::Booting(Way::Boot), Event::Still(why)) => (State::Ending { then: After::Again { why } }, vec![Kill]),
        (State::Booting(_) | State::Identifying(_) | State::Silent { .. }, Event::Stop { .. }) => {
            (State::Ending { then: STOPPED }, vec![Kill])
        }
        (State::Running, Event::Silent(why)) => (State::Silent { why }, vec![]),

        (State::Running, Event::Stop { grace_ms }) => (State::Ending { then: STOPPED }, vec![Shutdown { grace_ms }]),
        (
            State::Booting(_) | State::Identifying(_) | State::Running | State::Silent { .. },
            Event::Delete | Event::ClientGone,
        ) => (State::Ending { then: After::Removed }, vec![Kill]),
        (State::Booting(way) | State::Identifying(way), Event::Exited(why)) => {
            (State::Settling { then: way.failed(why) }, vec![Settle])
        }
        (State::Running | State::Silent { .. }, Event::Exited(why)) => {
            (State::Settling { then: Way::Boot.failed(why) }, vec![Settle])
        }

        (State::Ending { then: After::Again { .. } }, Event::Stop { .. }) => (State::Ending { then: STOPPED }, vec![]),
        (State::Settling { then: After::Again { .. } }, Event::Stop { .. }) => {
            (State::Settling { then: STOPPED }, vec![])
        }
        (State::Ending { then: After::Stopped { .. } | After::Again { .. } }, Event::Delete | Event::ClientGone) => {
            (State::Ending { then: After::Removed }, vec![Kill])
        }
        (State::Ending { then }, Event::Exited(_)) => (State::Settling { then }, vec![Settle]),
        (State::Settling { .. }, Event::Delete | Event::ClientGone) => {
            (State::Settling { then: After::Removed }, vec![])
        }
        (State::Settling { then: After::Stopped { why } }, Event::Settled) => (State::Stopped { why }, vec![]),
        (State::Settling { then: After::Again { .. } }, Event::Settled) => {
            (State::Launching { then: None }, vec![Launch])
        }
        (State::Settling { then: After::Removed }, Event::Settled) => (State::Removing { why: None }, vec![Remove]),

        (State::Removing { why }, Event::Removed(Ok(()))) => (State::Gone { why }, vec![]),
        // What a creation failed of says more than why its traces stay.
        (State::Removing { why: first }, Event::Removed(Err(why))) => {
            (State::Stuck { why: first.unwrap_or(why) }, vec![])
        }

        (state, _) => (state, vec![]),
    }
}

impl Way {
    /// What becomes of a VM that did not come up.
    fn failed(self, why: Error) -> After {
        match self {
            Way::Boot => After::Stopped { why: Some(why) },
            Way::Template => After::Again { why },
        }
    }
}

impl State {
    /// What a VM that is in this state when it comes into the world begins with.
    pub(crate) fn first_effects(&self) -> Vec<Effect> {
        match self {
            State::Creating { .. } => vec![Make],
            State::Booting(_) => vec![AwaitAgent],
            State::Ending { then: After::Stopped { .. } } => vec![Shutdown { grace_ms: 0 }],
            State::Ending { then: After::Removed | After::Again { .. } } => vec![Kill],
            State::Settling { .. } => vec![Settle],
            State::Removing { .. } => vec![Remove],
            _ => vec![],
        }
    }
}
