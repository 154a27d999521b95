//! PID 1 beside the agent: reaps everybody's orphans until it is told to become the image's init.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, execve};

use crate::{log, root, shutdown};

/// What an init that expects the kernel's environment finds, and where systemd says that it is up.
const INIT_ENVIRONMENT: [&CStr; 3] = [c"HOME=/", c"TERM=linux", c"NOTIFY_SOCKET=/run/banger/notify"];

/// Waits for the agent's word. `door` carries one message: the path of an init, up to a newline.
/// The answer is its end (the init runs) or a sentence (it does not).
pub(crate) fn run(agent: Pid, mut door: UnixStream) -> ExitCode {
    let error = match serve(agent, &mut door) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    log::error(&format!("PID 1 cannot go on: {error}"));
    ExitCode::FAILURE
}

fn serve(agent: Pid, door: &mut UnixStream) -> std::io::Result<Infallible> {
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    child_signal.thread_block()?;
    let signals = SignalFd::with_flags(&child_signal, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut request = Vec::new();
    let mut listening = true;
    loop {
        // Before the wait: children that ended before the signal was blocked sent no second one.
        reap(agent)?;
        let mut watched = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if listening {
            watched.push(PollFd::new(door.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let spoken = watched.get(1).and_then(PollFd::any).unwrap_or(false);
        while signals.read_signal()?.is_some() {}
        if !spoken {
            continue;
        }
        let mut chunk = [0; 4096];
        let length = door.read(&mut chunk)?;
        listening = length > 0;
        request.extend_from_slice(&chunk[..length]);
        if request.pop_if(|last| *last == b'\n').is_some() {
            let error = become_init(&std::mem::take(&mut request));
            // The agent reads the reason, and this goes on as the reaper.
            door.write_all(error.to_string().as_bytes())?;
            door.shutdown(std::net::Shutdown::Both)?;
            listening = false;
        }
    }
}

/// Takes every child that ended. Without its agent the VM cannot be reached any more, so it ends.
fn reap(agent: Pid) -> std::io::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) if status.pid() == Some(agent) && !matches!(status, WaitStatus::StillAlive) => {
                log::error(&format!("the agent ended ({status:?}), and so does the VM"));
                nix::unistd::sync();
                shutdown::reset()?;
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Moves the assembled root over the initramfs and runs the image's init there; comes back only with an error.
fn become_init(path: &[u8]) -> std::io::Error {
    match try_become_init(path) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_become_init(path: &[u8]) -> std::io::Result<Infallible> {
    let path = CString::new(path)?;
    chdir(root::SYSROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    let blocked = SigSet::thread_get_mask()?;
    SigSet::empty().thread_set_mask()?;
    // An init is told apart by its name: many are one binary under several.
    let result = execve(&path, &[path.as_c_str()], &INIT_ENVIRONMENT);
    blocked.thread_set_mask()?;
    Ok(result?)
}
