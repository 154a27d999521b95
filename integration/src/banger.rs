//! One banger: its own state and runtime folders, its own background process.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Who, catalog, leftovers};

/// A banger of one's own.
#[derive(Debug)]
pub struct Banger {
    who: Who,
    home: TempDir,
    catalog: PathBuf,
    linger: u32,
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Banger {
    /// A banger without any image.
    pub fn bare(who: Who) -> Self {
        who.prepare();
        let home = tempfile::Builder::new().prefix("bt-").tempdir().unwrap();
        who.own(home.path());
        for folder in ["state", "run"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
            who.own(&home.path().join(folder));
        }
        Banger { who, home, catalog: catalog::folder(who), linger: 20 }
    }

    /// A banger with the small image.
    pub fn new(who: Who) -> Self {
        Banger::with_image(who, "debian-tiny")
    }

    pub fn with_image(who: Who, image: &str) -> Self {
        let banger = Banger::bare(who);
        catalog::provide(&banger, image);
        banger
    }

    /// With a catalog of its own, so that a test may damage it: a copy of the shared one.
    #[must_use]
    pub fn own_catalog(mut self) -> Self {
        let copy = self.home.path().join("catalog");
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(&self.catalog).arg(&copy).status().unwrap();
        assert!(copied.success());
        self.stop_services();
        self.catalog = copy;
        self
    }

    /// How long the background process stays when nothing needs it.
    #[must_use]
    pub fn linger(mut self, seconds: u32) -> Self {
        self.linger = seconds;
        self
    }

    pub fn who(&self) -> Who {
        self.who
    }

    /// State, runtime folder and all else of this banger.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub fn catalog(&self) -> &Path {
        &self.catalog
    }

    /// Address of its private bus.
    pub fn bus(&self) -> String {
        format!("unix:path={}", self.home.path().join("run/bus").display())
    }

    /// A command line of this banger's, to be run.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.who.command(&program());
        command
            .env("BANGER_STATE_DIR", self.state())
            .env("BANGER_RUNTIME_DIR", self.home.path().join("run"))
            .env("BANGER_IMAGE_DIR", &self.catalog)
            .env("BANGER_LINGER_SECONDS", self.linger.to_string())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .args(arguments);
        command
    }

    /// Runs a command line to its end.
    pub fn run<I, S>(&self, arguments: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.feed(arguments, b"")
    }

    /// The same with this on stdin.
    pub fn feed<I, S>(&self, arguments: I, stdin: &[u8]) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let feeder = std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        let output = Output::of(child);
        feeder.join().unwrap();
        output
    }

    /// Runs a command line that must succeed; its stdout.
    pub fn ok<I, S>(&self, arguments: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let arguments: Vec<_> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let output = self.run(&arguments);
        assert_eq!(output.code, 0, "{arguments:?}\n{}{}\n{}", output.stdout, output.stderr, self.log_tail());
        output.stdout
    }

    /// Boots a machine of the small image, named.
    pub fn boot(&self, name: &str) {
        self.ok(["vm", "create", "--image", "debian-tiny", "--name", name]);
    }

    /// Runs a shell command in a machine; its stdout.
    pub fn sh(&self, vm: &str, script: &str) -> String {
        self.ok(["vm", "exec", vm, "--", "sh", "-c", script])
    }

    /// A machine's properties.
    pub fn show(&self, vm: &str) -> Value {
        serde_json::from_str(&self.ok(["vm", "show", vm, "--json"])).unwrap()
    }

    /// All machines.
    pub fn list(&self) -> Vec<Value> {
        serde_json::from_str::<Vec<Value>>(&self.ok(["vm", "list", "-a", "--json"])).unwrap()
    }

    /// The background process, if it runs.
    pub fn services(&self) -> Option<Pid> {
        let own = self.state().to_string_lossy().into_owned();
        leftovers::processes(self.home.path())
            .into_iter()
            .filter(|line| line.trim_end().ends_with("banger embedded"))
            .filter_map(|line| line.split(' ').next()?.parse::<i32>().ok())
            .find(|pid| {
                let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environ).contains(&own)
            })
            .map(Pid::from_raw)
    }

    /// `kill -9` of every service at once.
    pub fn kill_services(&self) {
        let pid = self.services().expect("the services run");
        kill(pid, Signal::SIGKILL).unwrap();
        eventually("the services are dead", || self.services().is_none());
    }

    /// Ends the services in order.
    pub fn stop_services(&self) {
        if let Some(pid) = self.services() {
            // It may end by itself in this moment.
            kill(pid, Signal::SIGTERM).ok();
            eventually("the services have ended", || self.services().is_none());
        }
    }

    /// The end of the services' log, for a failure's message.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.state().join("banger.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Output {
    /// Waits for a child and takes what it said.
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for something that must come true soon.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        #[allow(clippy::disallowed_methods, reason = "a test's own thread")]
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

/// The program under test, as installed by `make build`.
fn program() -> PathBuf {
    let dist = std::env::var_os("BANGER_TEST_DIST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist"), PathBuf::from);
    let program = dist.join("bin/banger").canonicalize();
    program.unwrap_or_else(|_| panic!("{} has no bin/banger: 'make build' makes it", dist.display()))
}

impl Drop for Banger {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the services' log ---\n{}", self.log_tail());
        }
        let machines: Vec<String> =
            self.run(["vm", "list", "-a", "--json"]).stdout.parse::<Value>().map_or(vec![], |v| {
                v.as_array().into_iter().flatten().filter_map(|vm| Some(vm["id"].as_str()?.to_owned())).collect()
            });
        if !machines.is_empty() {
            self.run(["vm", "delete"].iter().map(|s| (*s).to_owned()).chain(machines));
        }
        self.stop_services();
        let left = || [leftovers::processes(self.home.path()), leftovers::mounts(self.home.path())].concat();
        let begun = Instant::now();
        while !left().is_empty() && begun.elapsed() < Duration::from_secs(10) {
            #[allow(clippy::disallowed_methods, reason = "a test's own thread")]
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = left();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left on the host: {left:#?}");
        } else if !left.is_empty() {
            println!("left on the host: {left:#?}");
        }
    }
}
