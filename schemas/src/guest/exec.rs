//! Running a command in the guest: an argv from end to end, no shell in between.

use bincode::{Decode, Encode};

/// What to run. Strings are bytes: arguments and paths need be no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exec {
    /// Program (looked up in the guest's `PATH`) and arguments. Empty: root's login shell.
    pub argv: Vec<Vec<u8>>,
    /// Added to the guest's default environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory; `/root` when absent.
    pub cwd: Option<Vec<u8>>,
    /// A terminal of this size, or pipes.
    pub tty: Option<TtySize>,
    pub stdin: Stdin,
    pub wait: Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TtySize {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// Fed by [`ExecInput::Stdin`].
    Stream,
}

/// What must be up before the command starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Wait {
    /// Only the agent.
    Agent,
    /// The image's init has finished its start, where there is one.
    System,
}

/// Host to guest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ExecInput {
    /// At most [`crate::codec::MAX_DATA`] bytes.
    Stdin(Vec<u8>),
    /// No more input.
    StdinEof,
    Resize(TtySize),
    /// A signal number (Linux x86-64) for the command's process group.
    Signal(u8),
}

/// Guest to host. Ends with exactly one of `Exited`, `Signaled`, `Failed`; a stream that ends without is an error.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ExecOutput {
    Started {
        pid: u32,
    },
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exited(u8),
    Signaled(u8),
    /// The command could not be started.
    Failed(ExecFailure),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ExecFailure {
    /// No such program (a shell would say 127).
    NotFound,
    /// Found, and cannot be executed (a shell would say 126).
    NotExecutable(String),
    /// Anything else, in one sentence.
    Other(String),
}

impl ExecOutput {
    /// Whether nothing follows.
    pub fn is_end(&self) -> bool {
        matches!(self, ExecOutput::Exited(_) | ExecOutput::Signaled(_) | ExecOutput::Failed(_))
    }
}
