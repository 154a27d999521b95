//! What went wrong, said to a person; and the published exit codes.

use std::io;

use banger_schemas::error::{Error, Kind};

/// Exit codes of banger's own; every other is the guest command's.
pub(crate) mod code {
    pub(crate) const OK: u8 = 0;
    /// banger failed.
    pub(crate) const FAILED: u8 = 125;
    /// The command was found and cannot be executed.
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    /// The command was not found.
    pub(crate) const NOT_FOUND: u8 = 127;
    /// Ended by a signal: this and its number.
    pub(crate) const SIGNAL: u8 = 128;
    /// Interrupted by the user.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a command of banger's did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), hint: None, code: code::FAILED }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// Says it on stderr; the exit code.
    #[allow(clippy::print_stderr, reason = "this is where errors are shown")]
    pub(crate) fn report(&self) -> u8 {
        eprintln!("banger: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        self.code
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.kind == Kind::Canceled { code::INTERRUPTED } else { code::FAILED };
        Failure { message: error.message, hint: None, code }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(error.to_string())
    }
}
