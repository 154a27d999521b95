//! Jobs: what takes longer than a moment is an object that can be watched, waited for and canceled.

use std::fmt;
use std::str::FromStr;

use zbus::proxy;

use crate::error::{Error, Kind, Result};
use crate::options::Dict;

/// Name of the interface.
pub const INTERFACE: &str = "dev.banger.Job1";

/// How a job stands; the words are systemd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Under way.
    Running,
    Done,
    Canceled,
    Timeout,
    Failed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Done => "done",
            State::Canceled => "canceled",
            State::Timeout => "timeout",
            State::Failed => "failed",
        }
    }
}

impl FromStr for State {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        [State::Running, State::Done, State::Canceled, State::Timeout, State::Failed]
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| Error::internal(format!("unknown job state {s:?}")))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it does now, for people.
    pub stage: String,
    pub done: u64,
    /// 0: unknown.
    pub total: u64,
    /// What `done` and `total` count: `bytes`, `packages`, …
    pub unit: String,
}

/// A job, on the bus of the service that does it.
#[proxy(interface = "dev.banger.Job1", assume_defaults = false)]
pub trait Job {
    /// Asks the job to stop. It ends as `canceled`, unless it was too late.
    fn cancel(&self) -> zbus::Result<()>;

    /// Replies when the job has ended: its state, its result, and the name and sentence of its error.
    fn wait(&self) -> zbus::Result<(String, Dict, String, String)>;

    /// `create`, `start`, `pull`, …
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> zbus::Result<String>;

    /// The uid that it works for.
    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> zbus::Result<u32>;

    /// `running`, `done`, `canceled`, `timeout` or `failed`.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn state(&self) -> zbus::Result<String>;

    /// Stage, done, total (0: unknown), unit.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn progress(&self) -> zbus::Result<(String, u64, u64, String)>;
}

/// The end of a job as its caller takes it: the result, or the error.
pub fn outcome(reply: (String, Dict, String, String)) -> Result<Dict> {
    let (state, result, name, message) = reply;
    match state.parse()? {
        State::Done => Ok(result),
        State::Canceled => Err(Error::new(Kind::Canceled, message)),
        State::Timeout => Err(Error::new(Kind::Timeout, message)),
        State::Running | State::Failed => Err(Error::from_parts(&name, message)),
    }
}
