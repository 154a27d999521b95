//! Runs a program to its end: its messages line by line, its output as a stream, and an end that comes soon after
//! it is asked for. Knows nothing of what the program does.

use std::collections::VecDeque;
use std::env;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::{At, BuildError, Result};
use super::messages::Messages;
use super::progress::Cancel;

/// How long a program may take to clean up after itself once it was asked to end.
const GRACE: Duration = Duration::from_secs(5);
const TICK: u8 = 50;
const TAIL: usize = 20;
/// dpkg's command lines are kilobytes long; the beginning of a line says what it is about.
const MAX_LINE: usize = 300;

/// Where programs are looked for: an ordinary user's PATH often lacks the administrator's folders.
pub(super) fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Fails unless `program` is installed.
pub(super) fn require(program: &'static str, package: &'static str) -> Result<()> {
    let found = env::split_paths(&search_path()).any(|folder| folder.is_absolute() && folder.join(program).is_file());
    if found { Ok(()) } else { Err(BuildError::MissingProgram { program, package }) }
}

/// Runs `command` for what it does; its output is of no interest.
pub(super) fn run(program: &str, command: Command, cancel: &Cancel, line: &mut dyn FnMut(&str)) -> Result<()> {
    run_reading(program, command, cancel, line, |_| Ok(()))
}

/// Runs `command` and gives its output to `consume`, on another thread. An error of the program goes before the
/// errors that follow from its early end. `program` is what people know it by.
pub(super) fn run_reading<T: Send>(
    program: &str,
    mut command: Command,
    cancel: &Cancel,
    line: &mut dyn FnMut(&str),
    consume: impl FnOnce(&mut Output<'_>) -> Result<T> + Send,
) -> Result<T> {
    cancel.check()?;
    // A group of its own: an end that is asked for reaches all of it, and a ^C at the terminal reaches only us.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().when(program)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe)).when(program);
    };
    let over = AtomicBool::new(false);
    let mut log = VecDeque::new();
    let (status, consumed, ended) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut output = Output { pipe: stdout, over: &over, ended: false };
            let consumed = consume(&mut output);
            if consumed.is_ok() {
                let _ = io::copy(&mut output, &mut io::sink());
            }
            (consumed, output.ended)
        });
        let mut keep = |text: &str| {
            line(text);
            log.extend([text.chars().take(MAX_LINE).collect::<String>()]);
            if log.len() > TAIL {
                log.pop_front();
            }
        };
        let status = watch(&mut child, stderr, cancel, &mut keep);
        over.store(true, Ordering::Relaxed);
        match reader.join() {
            Ok((consumed, ended)) => (status, Some(consumed), ended),
            Err(_) => (status, None, false),
        }
    });
    cancel.check()?;
    let status = status.when(program)?;
    let consumed = consumed.unwrap_or_else(|| Err(io::Error::other("reading failed")).when(program));
    if consumed.is_err() && !ended {
        return consumed;
    }
    if !status.success() {
        return Err(BuildError::Failed {
            program: program.to_owned(),
            status: status.to_string(),
            log: Vec::from(log).join("\n"),
        });
    }
    consumed
}

/// Waits for the end of `child`, and brings it about when somebody wishes so.
fn watch(
    child: &mut Child,
    stderr: ChildStderr,
    cancel: &Cancel,
    line: &mut dyn FnMut(&str),
) -> io::Result<ExitStatus> {
    let group = Pid::from_raw(child.id().cast_signed());
    let mut messages = Messages::new(stderr);
    let mut asked: Option<Instant> = None;
    loop {
        messages.read(TICK, line)?;
        if let Some(status) = child.try_wait()? {
            // What it wrote last; without waiting, since something that outlives it may hold the pipe.
            while messages.read(0, line)? {}
            messages.flush(line);
            return Ok(status);
        }
        // The child is not reaped yet, so the number of its group is still its own.
        match asked {
            None if cancel.is_cancelled() => {
                killpg(group, Signal::SIGTERM)?;
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > GRACE => killpg(group, Signal::SIGKILL)?,
            _ => {}
        }
    }
}

/// The standard output of a running program. Ends with the program, even when a stray child holds the pipe open.
#[derive(Debug)]
pub(super) struct Output<'a> {
    pipe: ChildStdout,
    over: &'a AtomicBool,
    ended: bool,
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let over = self.over.load(Ordering::Relaxed);
            if readable(&self.pipe, TICK)? {
                let read = self.pipe.read(buffer)?;
                self.ended |= read == 0;
                return Ok(read);
            }
            if over {
                self.ended = true;
                return Ok(0);
            }
        }
    }
}

pub(super) fn readable(pipe: &impl AsFd, ticks: u8) -> io::Result<bool> {
    ready(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], ticks)
}

/// Waits up to `ticks` milliseconds; whether one is ready. A signal (any child's end is one) cuts the wait short:
/// poll(2) is never restarted.
pub(super) fn ready(fds: &mut [PollFd<'_>], ticks: u8) -> io::Result<bool> {
    match poll(fds, PollTimeout::from(ticks)) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn messages_and_output_both_arrive() {
        let mut lines = Vec::new();
        let output = run_reading(
            "sh",
            shell("echo one >&2; printf body; echo two >&2; printf three >&2"),
            &Cancel::default(),
            &mut |line| lines.push(line.to_owned()),
            |output| io::read_to_string(output).when("output"),
        );
        assert_eq!(output.unwrap(), "body");
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn a_failure_brings_the_last_lines() {
        let failing = shell("for i in $(seq 100); do echo line $i >&2; done; exit 3");
        let error = run("sh", failing, &Cancel::default(), &mut |_| ()).unwrap_err();
        let BuildError::Failed { status, log, .. } = error else { panic!("{error}") };
        assert!(status.contains('3'));
        assert_eq!(log.lines().count(), TAIL);
        assert!(log.ends_with("line 100") && log.starts_with("line 81"));
    }

    #[test]
    fn the_cause_is_told_not_the_consequence() {
        let fail = |output: &mut Output<'_>| {
            let text = io::read_to_string(output).when("output")?;
            Err::<(), _>(BuildError::corrupt("the stream", text))
        };
        let ended = run_reading("sh", shell("printf half; exit 1"), &Cancel::default(), &mut |_| (), fail);
        assert!(matches!(ended, Err(BuildError::Failed { .. })));
        let refused = run_reading("sh", shell("yes"), &Cancel::default(), &mut |_| (), |_| {
            Err::<(), _>(BuildError::corrupt("the stream", "unwanted"))
        });
        assert!(matches!(refused, Err(BuildError::Corrupt { .. })));
    }

    #[test]
    fn a_cancelled_program_and_its_children_end() {
        let cancel = Cancel::default();
        let begun = Instant::now();
        let mut pid = String::new();
        let result = run("sh", shell("sleep 1000 & echo $! >&2; wait"), &cancel, &mut |line| {
            pid = line.to_owned();
            cancel.cancel();
        });
        assert!(matches!(result, Err(BuildError::Cancelled)));
        assert!(begun.elapsed() < GRACE);
        // Nobody waits for a grandchild: it has been killed, and takes its moment.
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let gone = || state().is_empty() || state().contains(") Z ");
        while !gone() {
            assert!(begun.elapsed() < GRACE, "{}", state());
            thread::yield_now();
        }
    }

    #[test]
    fn a_stray_that_holds_the_pipes_is_not_waited_for() {
        let begun = Instant::now();
        run("sh", shell("setsid sleep 20 & exit 0"), &Cancel::default(), &mut |_| ()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        require("sh", "dash").unwrap();
        let error = require("no-such-program", "some-package").unwrap_err();
        assert!(error.to_string().contains("install the Debian package some-package"));
    }
}
