//! The errors of the mesh: one table of names. Each carries a sentence that says what happened and what to do.

use std::fmt;

use zbus::message::Header;
use zbus::names::ErrorName;

/// Prefix of every error name.
pub const PREFIX: &str = "dev.banger.Error.";

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident),+ $(,)?) => {
        /// What went wrong, as clients tell errors apart. The D-Bus name is [`PREFIX`] and the variant's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[doc = $doc])* $kind),+ }

        impl Kind {
            /// Every kind, for documentation and tests.
            pub const ALL: &[Kind] = &[$(Kind::$kind),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind)),+ }
            }

            fn error_name(self) -> &'static str {
                match self { $(Kind::$kind => concat!("dev.banger.Error.", stringify!($kind))),+ }
            }
        }
    };
}

kinds! {
    /// An argument cannot be right, whatever the state.
    InvalidArgument,
    /// An option that this version does not know.
    UnknownOption,
    /// No such VM, image, kernel or job.
    NotFound,
    /// The name is taken.
    Exists,
    /// The caller may not do this.
    NotAuthorized,
    /// Too many requests at once: try again.
    Busy,
    /// No answer within the deadline.
    Timeout,
    /// The object went away while the request was under way.
    Gone,
    /// In use by something else.
    InUse,
    /// Not possible in the object's present state.
    WrongState,
    /// A part of banger, or a program it needs, is not available.
    Unavailable,
    /// No room on the disk or in memory.
    NoSpace,
    /// This host, backend or version cannot do it.
    NotSupported,
    /// Canceled on request.
    Canceled,
    /// Stored data is damaged.
    Corrupt,
    /// The guest failed or did not answer.
    Guest,
    /// A bug or an unexpected failure of the host; the journal has more.
    Internal,
}

impl Kind {
    /// The kind of this D-Bus error name.
    pub fn from_name(name: &str) -> Option<Kind> {
        let short = name.strip_prefix(PREFIX)?;
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == short)
    }
}

/// An error as it crosses the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: shorten(message.into()) }
    }

    /// An argument that cannot be right; the message says which.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Error::new(Kind::InvalidArgument, message.to_string())
    }

    /// A failure that the caller can do nothing about.
    pub fn internal(message: impl fmt::Display) -> Self {
        Error::new(Kind::Internal, message.to_string())
    }

    /// The error that a stored or transmitted name and message stand for.
    pub fn from_parts(name: &str, message: String) -> Self {
        Error::new(Kind::from_name(name).unwrap_or(Kind::Internal), message)
    }

    /// An error that a bus, or a library on it, has a name for.
    fn of_the_bus(name: &str, message: String) -> Self {
        let kind = match name {
            "org.freedesktop.DBus.Error.ServiceUnknown"
            | "org.freedesktop.DBus.Error.NameHasNoOwner"
            | "org.freedesktop.DBus.Error.Disconnected"
            | "org.freedesktop.DBus.Error.NoReply" => Kind::Unavailable,
            "org.freedesktop.DBus.Error.UnknownObject" => Kind::NotFound,
            "org.freedesktop.DBus.Error.InvalidArgs" => Kind::InvalidArgument,
            "org.freedesktop.DBus.Error.AccessDenied" => Kind::NotAuthorized,
            other => Kind::from_name(other).unwrap_or(Kind::Internal),
        };
        Error::new(kind, message)
    }

    /// The D-Bus error name.
    pub fn name(&self) -> &'static str {
        self.kind.error_name()
    }

    /// Puts what was tried before the message.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Error::new(self.kind, format!("{what}: {}", self.message))
    }
}

/// The longest message, in bytes. What is quoted in one may come from anybody.
const LONGEST: usize = 4096;
/// What is kept of the end of a longer one, where it says what to do.
const END: usize = 1024;

fn shorten(message: String) -> String {
    const CUT: &str = " … ";
    if message.len() <= LONGEST {
        return message;
    }
    let whole = |at: &usize| message.is_char_boundary(*at);
    let head = (0..=LONGEST - END - CUT.len()).rev().find(whole).unwrap_or(0);
    let tail = (message.len() - END..).find(whole).unwrap_or(message.len());
    [&message[..head], CUT, &message[tail..]].concat()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl zbus::DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<zbus::Message> {
        zbus::Message::error(call, zbus::DBusError::name(self)).build(&(self.message.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.kind.error_name())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, message, _) => {
                Error::of_the_bus(&name, message.unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(error) => (*error).into(),
            zbus::Error::InputOutput(io) if io.kind() == std::io::ErrorKind::TimedOut => {
                Error::new(Kind::Timeout, "a service did not answer in time")
            }
            zbus::Error::InputOutput(io) => Error::new(Kind::Unavailable, format!("the bus went away: {io}")),
            _ => Error::new(Kind::Internal, error.to_string()),
        }
    }
}

/// zbus tells errors of the specification's names by variants of their own.
impl From<zbus::fdo::Error> for Error {
    fn from(error: zbus::fdo::Error) -> Self {
        match error {
            zbus::fdo::Error::ZBus(error) => error.into(),
            other => {
                let message = zbus::DBusError::description(&other).unwrap_or_default().to_owned();
                Error::of_the_bus(&zbus::DBusError::name(&other), message)
            }
        }
    }
}

macro_rules! invalid {
    ($($t:ty),+) => { $(impl From<$t> for Error {
        fn from(error: $t) -> Error {
            Error::invalid(error)
        }
    })+ };
}
invalid!(crate::name::InvalidName, crate::id::InvalidId, crate::size::InvalidSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_valid_dbus_error_name_and_parses_back() {
        for kind in Kind::ALL {
            let error = Error::new(*kind, "m");
            assert!(ErrorName::try_from(error.name()).is_ok());
            assert_eq!(Kind::from_name(error.name()), Some(*kind));
        }
        assert_eq!(Kind::from_name("org.example.Error.Exists"), None);
    }

    #[test]
    fn a_message_has_an_end_whatever_it_quotes() {
        let quoting = |quoted: &str| Error::invalid(format!("'{quoted}' is no name: use letters")).context("naming");
        assert_eq!(quoting("ä").message, "naming: 'ä' is no name: use letters");
        for quoted in ["x".repeat(8 << 20), "ä".repeat(5000), "😀".repeat(5001)] {
            let message = quoting(&quoted).message;
            assert!(message.len() <= LONGEST && message.len() > LONGEST - 8, "{}", message.len());
            assert!(message.starts_with("naming: '") && message.ends_with("is no name: use letters"));
        }
    }

    #[test]
    fn the_bus_s_own_errors_are_told_apart_however_the_library_hands_them_over() {
        use zbus::fdo;
        let of = |error: fdo::Error| Error::from(zbus::Error::FDO(Box::new(error)));
        assert_eq!(of(fdo::Error::NoReply("gone".into())), Error::new(Kind::Unavailable, "gone"));
        assert_eq!(of(fdo::Error::ServiceUnknown("m".into())).kind, Kind::Unavailable);
        assert_eq!(of(fdo::Error::UnknownObject("m".into())).kind, Kind::NotFound);
        assert_eq!(of(fdo::Error::AccessDenied("m".into())).kind, Kind::NotAuthorized);
        assert_eq!(of(fdo::Error::NoMemory("m".into())).kind, Kind::Internal);
        assert_eq!(Error::from(fdo::Error::InvalidArgs("m".into())).kind, Kind::InvalidArgument);
    }
}
