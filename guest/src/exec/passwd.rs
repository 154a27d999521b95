//! What `/etc/passwd` says of root, read without libc's name services.

use std::fs;

/// root as the image knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) shell: String,
}

impl Default for Account {
    fn default() -> Self {
        Account { name: "root".into(), shell: "/bin/sh".into() }
    }
}

impl Account {
    pub(super) fn of_root() -> Self {
        fs::read("/etc/passwd").ok().and_then(|text| parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
    }
}

/// The first account of uid 0 (passwd(5): name, password, uid, gid, comment, home, shell).
fn parse(text: &str) -> Option<Account> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        let [name, _, "0", _, _, _, shell] = fields[..] else { return None };
        // An empty last field means the standard shell.
        let shell = if shell.is_empty() { "/bin/sh" } else { shell };
        Some(Account { name: name.into(), shell: shell.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_whoever_has_uid_zero() {
        let text = "# comment\nbad line\ndaemon:x:1:1::/:/bin/false\ntoor:x:0:0:Root:/root:/bin/zsh\n";
        assert_eq!(parse(text), Some(Account { name: "toor".into(), shell: "/bin/zsh".into() }));
        assert_eq!(parse("root:x:0:0:::\n").map(|account| account.shell).as_deref(), Some("/bin/sh"));
        assert_eq!(parse("daemon:x:1:1::/:/bin/false\n"), None);
        assert_eq!(parse(""), None);
    }
}
