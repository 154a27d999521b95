//! The image's own init: which one it is, how it is started beside the agent, and when it is up.

pub(crate) mod cgroup;
mod find;
mod masks;
mod progress;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdStream;

use nix::mount::{MsFlags, mount};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

pub(crate) use find::{Flavor, Init};
pub(crate) use progress::Progress;

/// The agent's end of the line to PID 1.
#[derive(Debug)]
pub(crate) struct Door(Mutex<UnixStream>);

impl Door {
    pub(crate) fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Door(Mutex::new(UnixStream::from_std(stream)?)))
    }

    /// Asks PID 1 to become this init, and waits until it has.
    async fn become_init(&self, init: &Init) -> Result<(), String> {
        let mut line = init.path.as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        let mut door = self.0.lock().await;
        door.write_all(&line).await.map_err(|error| error.to_string())?;
        // exec closes the other end without a word; a failure is said.
        let mut reason = String::new();
        door.read_to_string(&mut reason).await.map_err(|error| error.to_string())?;
        if reason.is_empty() { Ok(()) } else { Err(reason) }
    }
}

/// The image's init, if it is wanted; where there is none, the control groups that it would mount.
pub(crate) fn find_or_stand_in(wanted: bool) -> (Option<Init>, io::Result<()>) {
    let found = if wanted { find::find() } else { None };
    let grouped = if found.is_none() { cgroup::mount_for_nobody_else() } else { Ok(()) };
    (found, grouped)
}

/// POSIX message queues (mq_overview(7)), as `dev-mqueue.mount` would mount them.
fn mount_queues() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    std::fs::create_dir_all("/dev/mqueue")?;
    Ok(mount(Some("mqueue"), "/dev/mqueue", Some("mqueue"), flags, None::<&str>)?)
}

/// Starts the init, and follows it from there on.
///
/// # Errors
/// A sentence; the guest then goes on without an init.
pub(crate) async fn start(init: &Init, door: &Door, progress: &Progress) -> Result<(), String> {
    if init.flavor == Flavor::Systemd {
        masks::write().map_err(|error| format!("cannot prepare systemd: {error}"))?;
        // What it finds mounted it starts no program for; without it that is its own matter.
        let _ = mount_queues();
        progress.listen().map_err(|error| format!("cannot listen to systemd: {error}"))?;
    }
    door.become_init(init).await?;
    progress.started(init);
    tokio::task::spawn_local(cgroup::leave_inits_group());
    Ok(())
}
