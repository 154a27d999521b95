//! A command on the host, as somebody: a transient unit each, so that it has what processes of a real host have, and
//! ends with the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Host, Who, patiently};
use crate::{Output, eventually};

/// Says that its session is there, by one pipe, and waits at the other to become the command.
const WAIT: &str = r#"echo >"$0.here" && read -r _ <"$0.go" && exec "$@""#;

/// What is to be run, by whom, with what on stdin and for how long.
#[derive(Debug)]
pub struct Errand<'h> {
    host: &'h Host,
    who: Who,
    words: Vec<OsString>,
    stdin: Vec<u8>,
    limit: Duration,
}

impl<'h> Errand<'h> {
    pub(super) fn new(host: &'h Host, who: Who, words: Vec<OsString>) -> Self {
        Errand { host, who, words, stdin: vec![], limit: Duration::from_secs(60) }
    }

    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// After this long it is killed, and the test fails.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// To its end.
    pub fn run(mut self) -> Output {
        let stdin = std::mem::take(&mut self.stdin);
        let mut running = self.start();
        running.feed(stdin);
        running.end()
    }

    /// To its good end; its stdout.
    pub fn ok(self) -> String {
        let what = format!("{}: {:?}", self.who, self.words);
        let output = self.run();
        assert_eq!(output.code, 0, "{what}\n{}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Starts it and lets it run; stdin is the caller's.
    pub fn start(self) -> Running<'h> {
        let sits = matches!(self.who, Who::Active(_) | Who::Inactive(_));
        assert!(!sits || self.host.has_seat(), "a machine of its own has terminals, which decide who sits there");
        match self.who {
            Who::Inactive(user) => self.start_behind(Who::Active(user.rival())),
            _ => self.start_unit(),
        }
    }

    /// Starts it in a session that somebody else's has pushed from the seat by then. A seat without terminals
    /// activates the newest session, so the command waits inside its own for the other's.
    fn start_behind(mut self, rival: Who) -> Running<'h> {
        let host = self.host;
        let gate = format!("/run/gate-{}", host.next_number());
        host.ask(["mkfifo", "--mode=0666", &format!("{gate}.here"), &format!("{gate}.go")]);
        let words = ["sh", "-c", WAIT, &gate].map(OsString::from).into_iter().chain(self.words);
        self.words = words.collect();
        let mut running = self.start_unit();
        host.ask(["cat", &format!("{gate}.here")]);
        let words = ["sh", "-c", "echo here; exec sleep infinity"].map(OsString::from);
        let mut sitting = Errand::new(host, rival, words.into()).start();
        sitting.says("here");
        running.rival = Some(Box::new(sitting));
        eventually("the other one sits there", || host.sitting().as_deref() == rival.user_name());
        host.ask(["sh", "-c", r#"echo >"$0""#, &format!("{gate}.go")]);
        running
    }

    fn start_unit(self) -> Running<'h> {
        let unit = format!("errand-{}.service", self.host.next_number());
        let mut command = self.host.inside();
        command.args(["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--unit", &unit]);
        let limit = format!("RuntimeMaxSec={}", self.limit.as_secs());
        let always = [limit, "IgnoreSIGPIPE=no".to_owned(), "Environment=LANG=C.UTF-8".to_owned()];
        for property in self.who.properties().into_iter().chain(always) {
            command.args(["--property", &property]);
        }
        command.arg("--").args(self.words.iter().map(|word| literal(word)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let outer = crate::Running::of(command);
        Running { host: self.host, unit, outer: Some(outer), rival: None, limit: self.limit, begun: Instant::now() }
    }
}

/// systemd replaces variables in what it starts.
fn literal(word: &OsStr) -> OsString {
    let bytes = word.as_bytes().iter().flat_map(|byte| if *byte == b'$' { vec![b'$'; 2] } else { vec![*byte] });
    OsString::from_vec(bytes.collect())
}

/// A command on the host that was started and not yet waited for. Dropped, it is killed.
#[derive(Debug)]
pub struct Running<'h> {
    host: &'h Host,
    unit: String,
    outer: Option<crate::Running>,
    rival: Option<Box<Running<'h>>>,
    limit: Duration,
    begun: Instant,
}

impl Running<'_> {
    fn outer(&mut self) -> &mut crate::Running {
        self.outer.as_mut().expect("it is taken at the end")
    }

    /// Waits until this stands in what it said, on stdout or stderr.
    pub fn says(&mut self, text: &str) -> &mut Self {
        self.outer().says(text);
        self
    }

    /// Its stdin, to be written and closed by somebody else; at the end it is closed anyway.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.outer().take_stdin()
    }

    /// Writes all of it to stdin and closes it.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        self.outer().feed(bytes);
    }

    /// Sends a signal to the command itself.
    pub fn signal(&self, signal: Signal) {
        self.host.ask(["systemctl", "kill", "--kill-whom=main", "--signal", signal.as_str(), &self.unit]);
    }

    pub fn has_ended(&mut self) -> bool {
        self.outer().has_ended()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Output {
        // systemd ends it in time; a while more, and systemd itself does not answer.
        let left = (self.limit + Duration::from_secs(10)).saturating_sub(self.begun.elapsed());
        crate::within(left, &format!("{} has ended", self.unit), || self.has_ended());
        let ended_in = self.begun.elapsed();
        let output = self.outer.take().expect("it ends once").end();
        assert!(ended_in < self.limit, "not within {:?}: {}{}", self.limit, output.stdout, output.stderr);
        output
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(outer) = self.outer.as_mut() else { return };
        if outer.has_ended() {
            return;
        }
        // It may end by itself in this moment.
        drop(self.host.inside().args(["systemctl", "kill", "--signal=KILL", &self.unit]).output());
        // Killed before its child, what stands outside would leave a zombie that the host's systemd waits for.
        patiently(Duration::from_secs(5), || outer.has_ended());
    }
}
