//! The life of a VM as a pure state machine: no clock, no file, no process.
//!
//! ```text
//!            Made         Start          Launched       AgentUp        Identified
//! Creating ───────► Stopped ──► Launching ──────► Booting ──────► Identifying ──────► Running
//!    │ failed          ▲            │ failed         │ late, dead       │ failed          │ Stop, Delete,
//!    │                 │            ▼                ▼                  ▼                 ▼ client gone
//!    │                 └──────── Settling ◄─────── Ending ◄──────────────────────────────┘
//!    ▼      Settled, deleted        │       Exited       (also straight to Settling when the VMM dies by itself)
//! Removing ◄────────────────────────┘
//!    ▼ Removed
//!   Gone
//! ```
//!
//! A VM that is to go on from a template, and does not, comes down as one that has failed and is launched once more: it
//! boots then. So is one whose boot stands still.

mod goal;
mod step;
#[cfg(test)]
mod tests;

use banger_schemas::error::Error;

pub(crate) use goal::Goal;
pub(crate) use step::step;

/// Where a VM is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Image, disks and address are being got. `doomed`: this is being abandoned, and then all is removed.
    Creating {
        start: bool,
        doomed: bool,
    },
    /// Nothing runs; disks and address are kept. `why`: what ended it, where nobody asked for it.
    Stopped {
        why: Option<Error>,
    },
    /// The keeper and the VMM are being started. `then`: what was asked for meanwhile.
    Launching {
        then: Option<After>,
    },
    /// The VMM runs; nothing was heard from the agent.
    Booting(Way),
    /// The agent is there and is being told who it is.
    Identifying(Way),
    Running,
    /// It was running, its keeper lives and does not answer: nothing is concluded, and it is asked again and again.
    Silent {
        why: Error,
    },
    /// The VMM is being ended.
    Ending {
        then: After,
    },
    /// The VMM is gone; what it used on the host is being put away.
    Settling {
        then: After,
    },
    /// Everything that belongs to the VM is being removed. `why`: the creation that failed.
    Removing {
        why: Option<Error>,
    },
    /// Nothing is left. `why` as before.
    Gone {
        why: Option<Error>,
    },
    /// Removing failed: what is left is shown, and a delete tries again.
    Stuck {
        why: Error,
    },
}

/// How a VM comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It boots, or was found on its way by a service that came back.
    Boot,
    /// It goes on from a template's guest. One that does not go on boots.
    Template,
}

/// What a VM that comes down becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    Stopped {
        why: Option<Error>,
    },
    Removed,
    /// Started once more, since its template's guest did not go on or its boot stood still.
    Again {
        why: Error,
    },
}

/// What happens to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Asked for by a user.
    Start,
    Stop {
        grace_ms: u32,
    },
    Delete,
    /// The client that an ephemeral VM is leased to is gone.
    ClientGone,
    /// Outcomes of effects.
    Made(Result<(), Error>),
    Launched(Result<Way, Error>),
    Identified(Result<(), Error>),
    Settled,
    Removed(Result<(), Error>),
    /// Told by the keeper.
    AgentUp,
    /// The keeper does not answer.
    Silent(Error),
    /// The VMM is gone; the error says how, for those who did not ask for it.
    Exited(Error),
    /// The boot deadline passed; the error has the last stage and the console's tail.
    Late(Error),
    /// The kernel has said nothing for so long that it never will.
    Still(Error),
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Claim image and kernel, make disks, reserve the address.
    Make,
    /// Stop making; the outcome of that is a failed `Made`.
    Abandon,
    /// Open everything, start the keeper, hand it all over; when it is the VM's turn.
    Launch,
    /// Count the time that the agent may take.
    AwaitAgent,
    /// Tell the agent who it is.
    Identify,
    /// Ask the guest to power off; end the VMM when it does not within this time.
    Shutdown { grace_ms: u32 },
    /// End the VMM at once.
    Kill,
    /// Take the TAP and the published ports away, wait for the keeper's end.
    Settle,
    /// Remove disks, address and claims.
    Remove,
}

impl State {
    /// The word on the bus.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            State::Creating { .. } => "creating",
            State::Stopped { why: None } => "stopped",
            State::Stopped { why: Some(_) } | State::Stuck { .. } | State::Silent { .. } => "failed",
            State::Launching { .. }
            | State::Booting(_)
            | State::Identifying(_)
            | State::Ending { then: After::Again { .. } }
            | State::Settling { then: After::Again { .. } } => "starting",
            State::Running => "running",
            State::Ending { then: After::Stopped { .. } } | State::Settling { then: After::Stopped { .. } } => {
                "stopping"
            }
            State::Ending { then: After::Removed }
            | State::Settling { then: After::Removed }
            | State::Removing { .. }
            | State::Gone { .. } => "deleting",
        }
    }

    /// What there is to say about it.
    pub(crate) fn detail(&self) -> String {
        match self {
            State::Stopped { why: Some(why) } | State::Stuck { why } | State::Silent { why } => why.message.clone(),
            State::Launching { .. } => "starting the VMM".into(),
            State::Booting(Way::Boot) => "waiting for the kernel and the agent".into(),
            State::Booting(Way::Template) => "waiting for the agent".into(),
            State::Identifying(_) => "the agent takes its identity".into(),
            State::Ending { then: After::Again { why } } | State::Settling { then: After::Again { why } } => {
                format!("starting once more: {}", why.message)
            }
            _ => String::new(),
        }
    }
}
