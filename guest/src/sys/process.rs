//! Forking, signalling, and what a child does between fork and exec.
#![allow(unsafe_code, reason = "fork, raw signal numbers and pre-exec hooks have no safe form")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid};

/// Descriptors that a command may open: what systemd gives to its services, low at first for whoever still uses
/// select(2), and high where a program asks for more.
const FILES: libc::rlimit = libc::rlimit { rlim_cur: 1024, rlim_max: MAX_FILES };
/// The agent's own limit: a few for each of its streams.
pub(crate) const MAX_FILES: u64 = 524_288;

pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks the process, which must not have a second thread.
pub(crate) fn fork() -> nix::Result<Fork> {
    // SAFETY: called once, at the start of `main`, before any thread exists: the child may do whatever it likes.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Sends any signal number, realtime ones too. A negative pid means its process group, -1 everybody.
pub(crate) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: kill takes two numbers and touches no memory.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The number of systemd's "reboot" signal: `SIGRTMIN+5` (systemd(1), "Signals").
pub(crate) fn systemd_reboot_signal() -> i32 {
    libc::SIGRTMIN() + 5
}

/// Lets the command lead a session of its own, with its standard input as its terminal if `terminal` says so.
pub(crate) fn lead_session(command: &mut Command, terminal: bool) {
    let prepare = move || {
        // SAFETY: these are system calls on constants and on a local signal set, for which all zeroes is a valid
        // value; none of them allocates or takes a lock.
        unsafe {
            Errno::result(libc::setsid())?;
            // Inherited over exec, and the agent blocks some.
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            Errno::result(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            if terminal {
                Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            }
            libc::setrlimit(libc::RLIMIT_NOFILE, &FILES);
            spare_no_longer();
        }
        Ok::<(), io::Error>(())
    };
    // SAFETY: the hook makes system calls only, so it may run between fork and exec.
    unsafe { command.pre_exec(prepare) };
}

/// The agent is exempt from the out-of-memory killer, what it runs must not be.
///
/// # Safety
/// None needed beyond being called where open, write and close may be.
unsafe fn spare_no_longer() {
    let path = c"/proc/self/oom_score_adj";
    // SAFETY: a constant path, a constant buffer of the length given, a descriptor that was just opened.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
    }
}
