//! What a job waits for: a state, not an event, so that none can be missed.

use banger_schemas::error::{Error, Kind, Result};

use super::{After, State};

/// The state that a caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Made, whether it runs or not.
    Made,
    Running,
    Stopped,
    Gone,
}

impl Goal {
    /// What a job that makes a VM waits for.
    pub(crate) fn of_creation(start: bool) -> Self {
        if start { Goal::Running } else { Goal::Made }
    }

    /// `None` while the state may still lead to the goal; else how it ended.
    pub(crate) fn verdict(self, state: &State) -> Option<Result<()>> {
        match (self, state) {
            (Goal::Made, State::Creating { .. } | State::Removing { .. }) => None,
            (Goal::Running, State::Launching { then: None } | State::Booting(_) | State::Identifying(_)) => None,
            (Goal::Running, State::Silent { .. }) => None,
            (
                Goal::Running,
                State::Ending { then: After::Again { .. } } | State::Settling { then: After::Again { .. } },
            ) => None,
            (Goal::Running, State::Creating { doomed: false, .. }) => None,
            // On the way down with a reason: the reason is told when everything is put away.
            (Goal::Running, State::Ending { then: After::Stopped { why: Some(_) } }) => None,
            (Goal::Running, State::Settling { then: After::Stopped { why: Some(_) } } | State::Removing { .. }) => None,
            (Goal::Running, State::Running) | (Goal::Gone, State::Gone { .. }) => Some(Ok(())),
            (Goal::Stopped, State::Stopped { .. }) => Some(Ok(())),
            (Goal::Running, State::Stopped { why: Some(why) }) => Some(Err(why.clone())),
            (Goal::Made | Goal::Running, State::Gone { why: Some(why) }) => Some(Err(why.clone())),
            (Goal::Made | Goal::Running | Goal::Gone, State::Stuck { why }) => Some(Err(why.clone())),
            (Goal::Made | Goal::Running | Goal::Stopped, State::Gone { .. }) | (Goal::Stopped, State::Stuck { .. }) => {
                Some(Err(Error::new(Kind::Gone, "the VM was deleted meanwhile")))
            }
            (Goal::Running, State::Stopped { .. } | State::Ending { .. } | State::Launching { .. }) => {
                Some(Err(Error::new(Kind::Canceled, "the VM was stopped meanwhile")))
            }
            (Goal::Running, State::Settling { .. } | State::Creating { .. }) => {
                Some(Err(Error::new(Kind::Canceled, "the VM was stopped meanwhile")))
            }
            (Goal::Made, _) => Some(Ok(())),
            (Goal::Stopped, State::Ending { .. } | State::Settling { .. } | State::Removing { .. }) => None,
            (Goal::Stopped, State::Launching { .. } | State::Creating { .. }) => None,
            (Goal::Stopped, State::Booting(_) | State::Identifying(_) | State::Running | State::Silent { .. }) => {
                Some(Err(Error::new(Kind::Canceled, "the VM was started again meanwhile")))
            }
            (Goal::Gone, _) => None,
        }
    }
}
