//! The guest wire protocol: what keeper, sessions and CLI say to the agent.
//!
//! On the transport (virtio-serial port or vsock) first the raw [`hello`]; then a yamux connection, the host being
//! its client. Every yamux stream serves one operation: the host sends one framed [`Request`], then what that
//! request says. The agent is anonymous until [`Request::Identify`]; before that it answers nothing else.

pub mod exec;
pub mod hello;
pub mod identity;

use bincode::{Decode, Encode};

pub use exec::{Exec, ExecFailure, ExecInput, ExecOutput, Stdin, TtySize, Wait};
pub use identity::{Address, Identity};

/// Streams that one guest connection may have open at once.
pub const MAX_STREAMS: usize = 256;
/// Streams that the multiplexer allows, at either end: twice as many, since it counts those that have ended until it has noticed.
pub const YAMUX_STREAMS: usize = 2 * MAX_STREAMS;
/// What either end may have to receive at once: yamux's 256 KiB for each stream, and 8 MiB by which windows of busy ones grow (it
/// doubles one that is used up within two round trips). Each half of a window is a message to the other side, and a message
/// costs an emulated guest as much as thousands of bytes.
pub const RECEIVE_WINDOW: usize = YAMUX_STREAMS * (256 << 10) + (8 << 20);

/// The first message on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Become this VM. Idempotent: the same identity again is answered as the first time.
    /// Answered by one [`Reply`].
    Identify(Box<Identity>),
    /// Run a command. Then [`ExecInput`] to the guest, [`ExecOutput`] to the host.
    Exec(Box<Exec>),
    /// How the guest does. Answered by one [`Reply`].
    Status,
    /// Sync all file systems, stop the image's init in order and power off. Answered by one [`Reply`]
    /// before the power goes; `grace_ms` bounds the wait for the init.
    Shutdown { grace_ms: u32 },
    /// Get everything ready that takes no identity. Answered by one [`Reply`], `Prepared` when nothing is left to do: here
    /// templates are frozen.
    Prepare,
}

/// The answer to a request that has one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The agent is this VM now, and its file systems are mounted.
    Ready(Ready),
    Status(Status),
    /// Shutdown has begun.
    Stopping,
    /// The request cannot be served; a sentence for the user.
    Refused(String),
    Prepared,
}

/// What a VM that has its identity says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ready {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Whether an image's init runs beside the agent.
    pub init: bool,
    /// Things that went wrong and did not matter enough to refuse, one sentence each.
    pub warnings: Vec<String>,
}

/// How the guest does.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    pub boot_id: String,
    pub system: System,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub uptime_ms: u64,
}

/// The image's own init, as far as the agent can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum System {
    /// There is none: the agent is PID 1.
    None,
    Starting,
    Up,
}

#[cfg(test)]
mod golden;
