//! What there is to install: the files of the repo, which are in this program, and the programs beside it.

use std::path::PathBuf;

use banger_bus::Dirs;
use banger_schemas::{dns, images, network, sessions, storage, vms};

use crate::error::Failure;

/// Path in the repo, and text (`build.rs`).
pub(crate) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Services: the program, which is also the unit, and the name on the bus. In the order of who asks whom: the last
/// ones are asked and ask nobody.
pub(crate) const SERVICES: &[(&str, &str)] = &[
    ("banger-sessions", sessions::NAME),
    ("banger-dns", dns::NAME),
    ("banger-vms", vms::NAME),
    ("banger-images", images::NAME),
    ("banger-storage", storage::NAME),
    ("banger-network", network::NAME),
];

/// What services run, or give to guests.
pub(crate) const HELPERS: &[&str] = &["banger-keeper", "banger-netns", "banger-guest"];

/// All that `lib/banger` holds.
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|(program, _)| *program).chain(HELPERS.iter().copied())
}

/// The installation, or the build, that this program belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) banger: PathBuf,
    pub(crate) lib: PathBuf,
}

impl Source {
    pub(crate) fn of_this_program() -> Result<Self, Failure> {
        Ok(Source { banger: std::env::current_exe()?, lib: Dirs::lib_of_program()? })
    }

    /// The commit that it was built from, where the build wrote it down.
    pub(crate) fn commit(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.lib.join(COMMIT)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| !commit.is_empty())
    }
}

/// The file beside the helpers that names the commit. Not compiled in: each commit would compile the program anew.
pub(crate) const COMMIT: &str = "commit";

/// Users and groups of banger's own, the users first: a group goes when nobody is in it.
pub(crate) fn accounts() -> Vec<Account> {
    let lines =
        FILES.iter().filter(|(path, _)| path.starts_with("systemd/sysusers.d/")).flat_map(|(_, text)| text.lines());
    let mut accounts: Vec<Account> = lines.filter_map(Account::of).collect();
    accounts.sort();
    accounts
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Account {
    User(String),
    Group(String),
}

impl Account {
    /// A line of sysusers.d(5). Accounts with other names (`kvm`) are the distribution's.
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (kind, name) = (words.next()?, words.next()?);
        match kind {
            _ if !name.starts_with("banger") => None,
            "u" => Some(Account::User(name.to_owned())),
            "g" => Some(Account::Group(name.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_a_user_and_foreign_groups_are_left_alone() {
        let accounts = accounts();
        for (program, _) in SERVICES {
            assert!(accounts.contains(&Account::User((*program).to_owned())), "{program}");
        }
        let groups: Vec<_> = accounts.iter().filter(|a| matches!(a, Account::Group(_))).collect();
        assert_eq!(groups, [&Account::Group("banger".into()), &Account::Group("banger-vm".into())]);
    }
}
