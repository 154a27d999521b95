//! A command line that runs: what it says as it says it, signals to it, its end.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Output, eventually, within};

/// A command that was started and not yet waited for. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
}

/// What came from a pipe so far.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Stream { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn end(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

impl Running {
    /// Starts any command whose output is piped.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        Running { child, stdin, stdout: Stream::of(stdout), stderr: Stream::of(stderr) }
    }

    /// Waits until this stands in what it said, on stdout or stderr.
    pub fn says(&self, text: &str) -> &Self {
        let said = || self.stdout.text().contains(text) || self.stderr.text().contains(text);
        eventually(&format!("{text:?} was said; said was {:?}", self.stderr.text()), said);
        self
    }

    /// Bytes that came on stdout so far.
    pub fn stdout_len(&self) -> usize {
        self.stdout.bytes.lock().unwrap().len()
    }

    /// Its stdin, to be written and closed by somebody else; at the end it is closed anyway.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is taken once")
    }

    /// Writes all of it to stdin and closes it, from a thread of its own.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        let mut stdin = self.take_stdin();
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn end(self) -> Output {
        let (output, stdout) = self.end_with_bytes();
        Output { stdout: String::from_utf8_lossy(&stdout).into_owned(), ..output }
    }

    /// The same with stdout as bytes.
    pub fn end_with_bytes(mut self) -> (Output, Vec<u8>) {
        drop(self.stdin.take());
        within(Duration::from_secs(90), "the command has ended", || self.has_ended());
        let status = self.child.wait().unwrap();
        let stdout = self.stdout.end();
        let stderr = String::from_utf8_lossy(&self.stderr.end()).into_owned();
        (Output { code: crate::banger::code(status), stdout: String::new(), stderr }, stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
