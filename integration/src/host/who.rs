//! Who asks: every kind of subject that polkit tells apart, as what systemd is told to make a process of it.

use std::fmt;

/// People of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum User {
    /// Whom banger is installed for; before that she is like Bob.
    Alice,
    Bob,
    Carol,
    /// An administrator: in the group sudo.
    Dave,
}

impl User {
    /// Name and password.
    pub fn name(self) -> &'static str {
        match self {
            User::Alice => "alice",
            User::Bob => "bob",
            User::Carol => "carol",
            User::Dave => "dave",
        }
    }

    /// Somebody else, who takes the seat.
    pub(super) fn rival(self) -> User {
        if self == User::Carol { User::Bob } else { User::Carol }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    Root,
    /// As cron and services run things for a user.
    NoSession(User),
    /// Sits at the machine.
    Active(User),
    /// Came by ssh: has a session, and no seat.
    Seatless(User),
    /// Is logged in at the machine while somebody else sits there.
    Inactive(User),
    Nobody,
}

impl Who {
    pub(super) fn user_name(self) -> Option<&'static str> {
        match self {
            Who::Root => Some("root"),
            Who::Nobody => Some("nobody"),
            Who::NoSession(user) | Who::Active(user) | Who::Seatless(user) | Who::Inactive(user) => Some(user.name()),
        }
    }

    /// What systemd-run(1) is told. A session comes from PAM; its seat from the variable that a display manager sets.
    pub(super) fn properties(self) -> Vec<String> {
        let (user, session, seat) = match self {
            Who::Root => return vec![],
            Who::Nobody => ("nobody", false, false),
            Who::NoSession(user) => (user.name(), false, false),
            Who::Seatless(user) => (user.name(), true, false),
            Who::Active(user) | Who::Inactive(user) => (user.name(), true, true),
        };
        let mut properties = vec![format!("User={user}"), "WorkingDirectory=-~".to_owned()];
        if session {
            properties.extend(["PAMName=login", "Environment=XDG_SESSION_TYPE=tty"].map(str::to_owned));
        }
        if seat {
            properties.push("Environment=XDG_SEAT=seat0".to_owned());
        }
        properties
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Root => f.write_str("root"),
            Who::NoSession(user) => write!(f, "{} without a session", user.name()),
            Who::Active(user) => write!(f, "{}, active", user.name()),
            Who::Seatless(user) => write!(f, "{}, seatless", user.name()),
            Who::Inactive(user) => write!(f, "{}, inactive", user.name()),
            Who::Nobody => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_asked_of_pam_and_only_who_sits_there_has_the_seat() {
        let has = |who: Who, word: &str| who.properties().iter().any(|p| p.contains(word));
        let table = [
            (Who::Root, false, false),
            (Who::Nobody, false, false),
            (Who::NoSession(User::Bob), false, false),
            (Who::Seatless(User::Bob), true, false),
            (Who::Inactive(User::Bob), true, true),
            (Who::Active(User::Bob), true, true),
        ];
        for (who, session, seat) in table {
            assert_eq!((has(who, "PAMName="), has(who, "XDG_SEAT=")), (session, seat), "{who}");
        }
    }

    #[test]
    fn nobody_is_their_own_rival() {
        for user in [User::Alice, User::Bob, User::Carol, User::Dave] {
            assert_ne!(user.rival(), user);
        }
    }
}
