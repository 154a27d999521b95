//! Descriptors as the kernel numbers them: the inherited listener, and what the VMM inherits.
//!
//! The only module (with `tsc` and `tap`) that holds unsafe code.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Command;

use crate::tap::Gate;

/// The first descriptor after the standard ones, where `sd_listen_fds(3)` says the listener is.
const FIRST: RawFd = 3;

/// The listening socket that systemd, or the supervisor in its manner, gave this process. Taken once.
pub fn inherited_listener() -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if std::env::var("LISTEN_FDS").as_deref() != Ok("1") {
        return refuse("no listening socket was given (LISTEN_FDS is not 1): the keeper is started by its supervisor");
    }
    // A supervisor that is no systemd cannot know the pid before it has spawned, so none is as good as ours.
    if std::env::var("LISTEN_PID").is_ok_and(|pid| pid != getpid().to_string()) {
        return refuse("the listening socket was meant for another process (LISTEN_PID)");
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        return refuse("the listening socket was taken already");
    }
    let fd = owned(FIRST);
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Lets the child inherit `passed`, each under the number it has here, and nothing else but the standard three;
/// and ties the child's life to this process.
pub(crate) fn inherit(command: &mut Command, passed: Vec<OwnedFd>) {
    before_exec(command, parent_bound(getpid(), passed));
}

/// Has the child's question for its TAP answered by us. Nothing that is done before the exec asks it.
pub(crate) fn answer(command: &mut Command, gate: Gate) {
    before_exec(command, move || gate.set_up());
}

fn parent_bound(parent: Pid, passed: Vec<OwnedFd>) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    move || {
        // Whoever started us may have left descriptors open without close-on-exec; the VMM gets none of them.
        close_others()?;
        for fd in &passed {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above: then nobody would send that signal.
        if getppid() != parent {
            return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
        }
        Ok(prctl::set_no_new_privs()?)
    }
}

/// Whether there is nobody at the other end: of a connected unix socket, when it is closed altogether, not only for
/// writing.
pub(crate) fn hung_up(descriptor: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::empty())];
    let events = poll(&mut fds, PollTimeout::ZERO).ok().and_then(|_| fds[0].revents());
    events.is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
}

#[allow(unsafe_code, reason = "a call that nix does not wrap")]
fn close_others() -> io::Result<()> {
    let flags = nix::libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: sets a flag on descriptors; nothing is closed before the exec that this child is about to do.
    match unsafe { nix::libc::close_range(FIRST.cast_unsigned(), u32::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code, reason = "code between fork and exec")]
fn before_exec(command: &mut Command, step: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: the callers pass `parent_bound` and `Gate::set_up`, which make system calls and neither allocate nor lock.
    unsafe { command.pre_exec(step) };
}

#[allow(unsafe_code, reason = "LISTEN_FDS=1 says that this number is an open descriptor meant for us")]
fn owned(raw: RawFd) -> OwnedFd {
    // SAFETY: reached once in the process's life, before it opened a descriptor itself.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
