//! A process that ends with the test, whoever is killed.

use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Tied {
    pid: Pid,
    ended: JoinHandle<ExitStatus>,
}

impl Tied {
    /// Starts what `words` prepares a command for.
    pub(super) fn start(prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        prepare(&mut command);
        let (started, pid) = mpsc::channel();
        // The kernel sends the signal of a parent's death when the thread that made the child ends: this one waits.
        let ended = std::thread::spawn(move || {
            let mut child = command.spawn().expect("setpriv is part of util-linux");
            started.send(Pid::from_raw(child.id().try_into().unwrap())).unwrap();
            child.wait().unwrap()
        });
        Tied { pid: pid.recv().unwrap(), ended }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }

    pub(super) fn kill(&self) {
        if !self.has_ended() {
            // It may end by itself in this moment.
            kill(self.pid, Signal::SIGKILL).ok();
        }
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        self.kill();
    }
}
