//! One banger: its own state and runtime folders, its own background process.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
pub(crate) use crate::namespace::code;
use crate::{Running, Who, catalog, leftovers};

/// A banger of one's own.
#[derive(Debug)]
pub struct Banger {
    who: Who,
    home: TempDir,
    catalog: PathBuf,
    linger: u32,
    variables: Vec<(String, OsString)>,
    namespace: Option<Namespace>,
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
        Banger { who, home, catalog: catalog::folder(who), linger: 20, variables: vec![], namespace: None }
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
        // What runs already was started with another patience.
        self.stop_services();
        self.linger = seconds;
        self
    }

    /// Sets a variable for its commands and services.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.stop_services();
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Its commands and services run in a mount namespace of their own, prepared by this script of root's.
    #[must_use]
    pub fn mounting(mut self, script: &str) -> Self {
        self.stop_services();
        self.namespace = Some(Namespace::prepared_by(script));
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

    /// Asks its services something over their bus, as whoever runs the tests.
    pub fn ask<T>(&self, question: impl AsyncFnOnce(zbus::Connection) -> T) -> T {
        ask_at(&self.bus(), question)
    }

    /// A command line of this banger's, to be run.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let entrance = self.namespace.as_ref().map(Namespace::entrance).unwrap_or_default();
        let mut command = self.who.command_behind(&entrance, &program());
        command
            .env("BANGER_STATE_DIR", self.state())
            .env("BANGER_RUNTIME_DIR", self.home.path().join("run"))
            .env("BANGER_IMAGE_DIR", &self.catalog)
            .env("BANGER_LINGER_SECONDS", self.linger.to_string())
            // What a test watches shall not have another machine boot beside it.
            .env("BANGER_TEMPLATES", "off")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .args(arguments);
        command
    }

    /// A program of the system's that sees the mounts of this banger's.
    pub fn in_its_mounts<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut all = self.namespace.as_ref().map(Namespace::entrance).unwrap_or_default();
        all.extend(words.into_iter().map(str::to_owned));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]);
        command
    }

    /// What a script says, in its mounts, where its state is.
    pub fn in_its_state(&self, script: &str) -> String {
        // Who enters other mounts is at their root.
        let there = format!("cd {}\n{script}", self.state().display());
        let done = self.in_its_mounts(["sh", "-ec", &there]).current_dir("/").output().unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
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

    /// Starts a command line and lets it run.
    pub fn start<I, S>(&self, arguments: I) -> Running
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Running::of(self.command(arguments))
    }

    /// Runs a command line that must fail with banger's own exit code; what it complained of.
    pub fn fails<I, S>(&self, arguments: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = self.run(arguments);
        assert_eq!(output.code, 125, "{}{}", output.stdout, output.stderr);
        output.stderr
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
        self.all_services().into_iter().next()
    }

    /// All processes that are or want to be it.
    pub fn all_services(&self) -> Vec<Pid> {
        let own = self.state().to_string_lossy().into_owned();
        leftovers::processes(self.home.path())
            .into_iter()
            .filter(|line| line.trim_end().ends_with("banger embedded"))
            .filter_map(|line| line.split(' ').next()?.parse::<i32>().ok())
            .filter(|pid| {
                let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environ).contains(&own)
            })
            .map(Pid::from_raw)
            .collect()
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

    /// Keepers and VMMs of this banger's machines that run on the host.
    pub fn on_the_host(&self) -> Vec<String> {
        let mut found = leftovers::processes(&self.state());
        found.retain(|line| line.contains("banger-keeper") || line.contains("qemu-system"));
        found
    }

    /// How many processes of this banger's have this word in their command line.
    pub fn on_the_host_named(&self, word: &str) -> usize {
        leftovers::processes(self.home.path()).iter().filter(|line| line.contains(word)).count()
    }

    /// The process on the host that keeps a machine.
    pub fn keeper(&self, id: &str) -> Pid {
        let keepers = leftovers::processes(&self.state().join("vms").join(id));
        pid(keepers.iter().find(|line| line.contains("banger-keeper")).expect("the machine has a keeper"))
    }

    /// The VMMs of this banger's machines, and of templates in the making.
    pub fn vmms(&self) -> Vec<Pid> {
        let running = self.on_the_host();
        running.iter().filter(|line| line.contains("qemu-system")).map(|line| pid(line)).collect()
    }

    /// What is kept of machines on the disk.
    pub fn on_the_disk(&self) -> Vec<PathBuf> {
        let folders = ["vms", "disks"].map(|folder| self.state().join(folder));
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        entries.filter(|e| !e.file_name().to_string_lossy().starts_with('.')).map(|e| e.path()).collect()
    }

    /// Asserts that no machine is left: none listed, none on the host, none on the disk.
    pub fn has_nothing_left(&self) {
        eventually("no machine is listed", || self.list().is_empty());
        // The maker of a template may still be at work: nobody waits for it.
        eventually("no machine is on the host, nor on the disk", || {
            self.on_the_host().is_empty() && self.on_the_disk().is_empty()
        });
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
            code: code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Asks whoever is on the bus of this address something.
pub(crate) fn ask_at<T>(address: &str, question: impl AsyncFnOnce(zbus::Connection) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bus = zbus::connection::Builder::address(address).build().await.unwrap();
        question(bus).await
    })
}

/// Whose line of [`leftovers::processes`] this is.
fn pid(line: &str) -> Pid {
    Pid::from_raw(line.split(' ').next().unwrap().parse().unwrap())
}

/// Waits for something that must come true soon.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) -> Duration {
    within(Duration::from_secs(20), what, holds)
}

/// The same with a time of its own, for what takes long by nature.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        #[allow(clippy::disallowed_methods, reason = "a test's own thread")]
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

/// What is under test, as `make build` lays it out.
pub fn dist() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
    std::env::var_os("BANGER_TEST_DIST").map_or_else(here, PathBuf::from)
}

fn program() -> PathBuf {
    let program = dist().join("bin/banger").canonicalize();
    program.unwrap_or_else(|_| panic!("{} has no bin/banger: 'make build' makes it", dist().display()))
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
        self.namespace = None;
        let left = leftovers::in_the_end(|| {
            [leftovers::processes(self.home.path()), leftovers::mounts(self.home.path())].concat()
        });
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left on the host: {left:#?}");
        } else if !left.is_empty() {
            println!("left on the host: {left:#?}");
        }
    }
}
