//! The whole command line as one document, `snapshots/reference.txt`: a change of any help text shows in review.
//! `make blessed` writes it anew.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A home that nothing has been in yet.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Home(tempfile::tempdir().unwrap())
    }

    /// Runs the program with no terminal and nothing of the environment, but for this home.
    fn run(&self, arguments: &[String]) -> Output {
        let home = self.0.path();
        Command::new(env!("CARGO_BIN_EXE_banger"))
            .args(arguments)
            .env_clear()
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("BANGER_STATE_DIR", home.join("banger-state"))
            .env("BANGER_RUNTIME_DIR", home.join("banger-run"))
            .current_dir(home)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What it says to a command line that must succeed.
    fn said(&self, arguments: &[String]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Nothing was made here: no state, no socket, no log.
    fn assert_untouched(&self) {
        let entries: Vec<_> = std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(entries.is_empty(), "{entries:?}");
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The commands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The help of a command and of all below it.
fn append(reference: &mut String, home: &Home, command: &[String]) {
    let help = home.said(&[command, &words("--help")].concat());
    let line = [&words("banger"), command, &words("--help")].concat().join(" ");
    reference.push_str(&format!("$ {line}\n{help}\n"));
    for name in subcommands(&help) {
        append(reference, home, &[command, &[name]].concat());
    }
}

#[test]
fn the_reference_is_what_the_program_says() {
    let home = Home::new();
    let mut reference = format!("$ banger --version\n{}\n", home.said(&words("--version")));
    append(&mut reference, &home, &[]);
    home.assert_untouched();

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/reference.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    let differs = stored.lines().zip(reference.lines()).find(|(stored, said)| stored != said);
    assert_eq!(differs, None, "the help texts are not what {} has: 'make blessed' writes it anew", path.display());
    assert_eq!(stored, reference, "'make blessed' writes it anew");
}

#[test]
fn help_and_mistakes_start_nothing() {
    let home = Home::new();
    for asked in ["--help", "-h", "help vm run", "--version", "-V", "vm --help", "vm run -h", "doctor --help"] {
        home.said(&words(asked));
    }
    for wrong in ["", "vm", "no-such-command", "vm run --no-such-option", "vm exec", "--version=1"] {
        let output = home.run(&words(wrong));
        assert_eq!(output.status.code(), Some(2), "{wrong}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong}: {output:?}");
    }
    home.assert_untouched();
}
