//! Where things go on a host. Pure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The prefix that the files in the repo are written for.
const WRITTEN_FOR: &str = "/usr/local/lib/banger";

/// The folder below which banger is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(String);

/// A kind of file that the host looks for in places of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Units,
    Sysusers,
    Tmpfiles,
    BusPolicy,
    Activation,
    PolkitActions,
    PolkitRules,
}

impl Place {
    /// The kind of a file of the repo, by its folder there, and its path below that.
    pub(crate) fn of(source: &str) -> Option<(Self, &str)> {
        let folders = [
            ("systemd/system/", Place::Units),
            ("systemd/sysusers.d/", Place::Sysusers),
            ("systemd/tmpfiles.d/", Place::Tmpfiles),
            ("dbus-policy/system.d/", Place::BusPolicy),
            ("dbus-policy/system-services/", Place::Activation),
            ("dbus-policy/actions/", Place::PolkitActions),
            ("dbus-policy/rules.d/", Place::PolkitRules),
        ];
        folders.into_iter().find_map(|(folder, place)| Some((place, source.strip_prefix(folder)?)))
    }
}

impl Prefix {
    pub(crate) fn bin(&self) -> PathBuf {
        self.join("bin")
    }

    pub(crate) fn lib(&self) -> PathBuf {
        self.join("lib/banger")
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.join("share")
    }

    fn join(&self, below: &str) -> PathBuf {
        Path::new(&self.0).join(below)
    }

    /// Where the host looks for files of this kind. What belongs to the distribution is in `/usr`; the administrator's
    /// is in `/usr/local` where that is looked at, else in `/etc`.
    pub(crate) fn folder(&self, place: Place) -> PathBuf {
        let systemd = |name: &str| match self.0.as_str() {
            // systemd.unit(5), sysusers.d(5), tmpfiles.d(5): both are read, any other prefix is not.
            "/usr" | "/usr/local" => self.join("lib").join(name),
            _ => Path::new("/etc").join(name),
        };
        let vendor = self.0 == "/usr";
        match place {
            Place::Units => systemd("systemd/system"),
            Place::Sysusers => systemd("sysusers.d"),
            Place::Tmpfiles => systemd("tmpfiles.d"),
            Place::BusPolicy if vendor => "/usr/share/dbus-1/system.d".into(),
            Place::BusPolicy => "/etc/dbus-1/system.d".into(),
            // dbus-daemon(1), <standard_system_servicedirs/>.
            Place::Activation if vendor => "/usr/share/dbus-1/system-services".into(),
            Place::Activation => "/usr/local/share/dbus-1/system-services".into(),
            // polkit(8): actions are looked for nowhere else.
            Place::PolkitActions => "/usr/share/polkit-1/actions".into(),
            Place::PolkitRules if vendor => "/usr/share/polkit-1/rules.d".into(),
            Place::PolkitRules => "/etc/polkit-1/rules.d".into(),
        }
    }

    /// A file of the repo with the paths of this prefix.
    pub(crate) fn substitute(&self, text: &str) -> String {
        text.replace(WRITTEN_FOR, &format!("{}/lib/banger", self.0))
    }

    /// Whether a VM's unit, which sees `/usr` and little else of the host, sees the keeper without further ado.
    pub(crate) fn is_below_usr(&self) -> bool {
        Path::new(&self.0).starts_with("/usr")
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
        let parts: Vec<&str> = text.split('/').collect();
        // Units and files of the bus have each their own escapes: a path that needs none needs no care.
        if !text.starts_with('/') || !text.chars().all(plain) || parts[1..].iter().any(|p| ["", ".", ".."].contains(p))
        {
            return Err("give an absolute path of letters, digits and ._+- such as /usr/local or /opt/banger".into());
        }
        // What `ProtectHome=` and `PrivateTmp=` hide from the services.
        if let Some(hidden) = ["home", "root", "run", "tmp", "var/tmp"].iter().find(|dir| {
            let path = Path::new(text);
            path.strip_prefix("/").is_ok_and(|below| below.starts_with(dir))
        }) {
            return Err(format!(
                "services cannot look into /{hidden}: choose another, such as /usr/local or /opt/banger"
            ));
        }
        Ok(Prefix(text.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_folders_that_services_can_see_are_taken() {
        for good in ["/usr", "/usr/local", "/opt/banger-0.1"] {
            assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
        }
        let bad =
            ["", "/", "usr", "/usr/", "/usr//local", "/usr/../etc", "/a b", "/a%n", "/home/me", "/root", "/tmp/x"];
        for bad in bad {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_below_usr_goes_where_the_administrator_puts_things() {
        let opt: Prefix = "/opt/banger".parse().unwrap();
        assert_eq!(opt.folder(Place::Units), Path::new("/etc/systemd/system"));
        assert_eq!(opt.substitute("ExecStart=/usr/local/lib/banger/x"), "ExecStart=/opt/banger/lib/banger/x");
        assert!(!opt.is_below_usr());
    }
}
