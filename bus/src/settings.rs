//! The settings of this process: a host's or a user's file, and what the environment says against it. The only place that
//! reads either.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use banger_schemas::error::{Error, Result};
pub use banger_schemas::settings::{LinkName, NOBODYS, Settings, Subnet};

use crate::dirs;

/// For the services of a host.
pub const OF_THE_HOST: &str = "/etc/banger/config.toml";
/// In a user's folder of settings.
const NAME: &str = "banger/config.toml";

static TAKEN_UP: OnceLock<TakenUp> = OnceLock::new();

#[derive(Debug)]
struct TakenUp {
    settings: Settings,
    mistaken: bool,
}

/// Where the user who runs this has theirs: below `$XDG_CONFIG_HOME`, else below `~/.config`.
pub fn of_user() -> Result<PathBuf> {
    Ok(dirs::var("XDG_CONFIG_HOME").map_or_else(|| dirs::home().map(|home| home.join(".config")), Ok)?.join(NAME))
}

/// What a file says. One that is not there says nothing.
pub fn read(file: &Path) -> Result<Settings> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.map_err(|error| Error::invalid(format!("cannot read {}: {error}", file.display())))?,
    };
    Settings::parse(&text).map_err(|error| Error::invalid(format!("{}, {error}", file.display())))
}

/// Makes them the settings of this process: the file's, and over them the environment's. Of a file that is not understood
/// nothing holds.
pub fn take_up(file: Result<PathBuf>) -> Result<()> {
    let (settings, outcome) = match file.and_then(|file| read(&file)) {
        Ok(settings) => (settings, Ok(())),
        Err(error) => (Settings::default(), Err(error)),
    };
    // Once a process; tests that start services in their own come here again.
    let _ = TAKEN_UP.set(TakenUp::new(settings, outcome.is_err()));
    outcome
}

/// The settings of this process.
pub fn get() -> &'static Settings {
    &TAKEN_UP.get_or_init(TakenUp::default).settings
}

/// Whether the file was not understood, so that these are not what anybody wants.
pub fn are_mistaken() -> bool {
    TAKEN_UP.get_or_init(TakenUp::default).mistaken
}

impl TakenUp {
    fn new(settings: Settings, mistaken: bool) -> Self {
        TakenUp { settings: overridden(settings, |name| env::var(name).ok()), mistaken }
    }
}

impl Default for TakenUp {
    fn default() -> Self {
        TakenUp::new(Settings::default(), false)
    }
}

fn overridden(mut settings: Settings, variable: impl Fn(&str) -> Option<String>) -> Settings {
    let lines = |text: String| text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if let Some(path) = variable("BANGER_FIRECRACKER") {
        settings.firecracker_bin = Some(path.into());
    }
    if let Some(seconds) = variable("BANGER_LINGER_SECONDS").and_then(|text| text.parse().ok()) {
        settings.linger_seconds = Some(seconds);
    }
    if let Some(level) = variable("BANGER_LOG") {
        settings.log_level = Some(level);
    }
    if let Some(mirrors) = variable("BANGER_MIRRORS") {
        settings.mirrors = lines(mirrors);
    }
    if let Some(templates) = variable("BANGER_TEMPLATES") {
        settings.templates = Some(templates != "off");
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_beats_the_file() {
        let said = |name: &str| match name {
            "BANGER_FIRECRACKER" => Some("/opt/firecracker".to_owned()),
            "BANGER_MIRRORS" => Some("http://a.example\n\nhttp://b.example\n".to_owned()),
            "BANGER_TEMPLATES" => Some("off".to_owned()),
            "BANGER_LINGER_SECONDS" => Some("soon".to_owned()),
            _ => None,
        };
        let file =
            Settings { linger_seconds: Some(7), templates: Some(true), tap_pool_size: Some(3), ..Settings::default() };
        let expected = Settings {
            firecracker_bin: Some("/opt/firecracker".into()),
            mirrors: vec!["http://a.example".into(), "http://b.example".into()],
            templates: Some(false),
            ..file.clone()
        };
        assert_eq!(overridden(file, said), expected);
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_and_one_that_is_wrong_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        assert_eq!(read(&file), Ok(Settings::default()));
        std::fs::write(&file, "templates = false\n").unwrap();
        assert_eq!(read(&file).unwrap().templates, Some(false));
        std::fs::write(&file, "\nnothing = 1\n").unwrap();
        let told = read(&file).unwrap_err().message;
        assert!(told.starts_with(&format!("{}, line 2: there is no setting", file.display())), "{told}");
        assert!(read(folder.path()).unwrap_err().message.starts_with("cannot read"));
    }
}
