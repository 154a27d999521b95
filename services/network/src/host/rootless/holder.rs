//! The holder: a process that does nothing but keep a user and a network namespace alive.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{dup2_stdin, getgid, getuid, pause};

/// The helper's side: makes the namespaces, says so with a byte on standard input (a pipe's writing end), and waits to
/// be killed.
pub fn serve() -> io::Result<()> {
    make_namespaces().map_err(|(step, error)| io::Error::new(error.kind(), format!("{step}: {error}")))?;
    // Only what `ps` shows.
    let _ = prctl::set_name(c"banger-hold");
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    let ready = io::stdin();
    // The launcher may have gone; the holder is recorded and will be found.
    let _ = fs::File::from(std::os::fd::AsFd::as_fd(&ready).try_clone_to_owned()?).write_all(b"1");
    dup2_stdin(&null)?;
    loop {
        pause();
    }
}

/// Moves this process, which must have one thread, into new user and network namespaces, as their root. On failure
/// says at which step.
pub fn make_namespaces() -> Result<(), (&'static str, io::Error)> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|e| ("unshare", e.into()))?;
    // user_namespaces(7): without setgroups an unprivileged process may write its own gid's line.
    write("/proc/self/setgroups", "deny").map_err(|e| ("setgroups", e))?;
    write("/proc/self/uid_map", &format!("0 {uid} 1")).map_err(|e| ("uid_map", e))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1")).map_err(|e| ("gid_map", e))
}

fn write(path: &str, text: &str) -> io::Result<()> {
    fs::write(path, text)
}
