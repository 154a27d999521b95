//! A keeper as a detached process of this user: its socket lies in the VM's folder.

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;

use banger_bus::dirs::private_folder;
use banger_bus::process::Process;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::io::packet::listen_at;
use command_fds::{CommandFdExt, FdMapping};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use rustix::process::{Pid, setpriority_process};

use super::{Haste, Limits, Runner};
use crate::host::keeper::{fresh_file, through};

const SOCKET: &str = "keeper.sock";
/// What the keeper says of its own work.
const LOG: &str = "keeper.log";

/// What others of the user's go before, nice(1).
const NICE: i32 = 19;

/// Keepers as children that nobody waits for.
#[derive(Debug)]
pub(crate) struct Detached {
    /// The state of all VMs.
    pub(crate) folder: PathBuf,
    /// `banger-keeper`.
    pub(crate) program: PathBuf,
}

impl Detached {
    fn home(&self, vm: &VmId) -> PathBuf {
        self.folder.join(vm.as_str())
    }

    fn spawn(&self, vm: &VmId) -> Result<Process> {
        let home = self.home(vm);
        private_folder(&home)?;
        let failed = |e: std::io::Error| Error::internal(format!("cannot start the VM's keeper: {e}"));
        let folder = File::open(&home).map_err(failed)?;
        let path = through(&folder, SOCKET);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = listen_at(&path).map_err(failed)?;
        let log = fresh_file(&home.join(LOG)).map_err(failed)?;
        let mut command = std::process::Command::new(&self.program);
        command
            .env_clear()
            .env("LISTEN_FDS", "1")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .fd_mappings(vec![FdMapping { parent_fd: listener, child_fd: 3 }])
            .map_err(|e| Error::internal(format!("cannot start the VM's keeper: {e}")))?;
        let child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|e| Error::new(Kind::Unavailable, format!("cannot start {}: {e}", self.program.display())))?;
        // Nobody waits for its status here (its watchers are told); the runtime reaps it when it is dropped.
        let pid = child.id().ok_or_else(|| Error::internal("the VM's keeper ended at once"))?;
        Process::of(pid.cast_signed()).map_err(|_| Error::internal("the VM's keeper ended at once"))
    }
}

impl Runner for Detached {
    fn socket(&self, vm: &VmId) -> (PathBuf, String) {
        (self.home(vm), SOCKET.to_owned())
    }

    /// A user without privilege limits nothing: the VM has what its spec says, and the VMM's own memory.
    fn start<'a>(&'a self, vm: &'a VmId, limits: Limits) -> BoxFuture<'a, Result<Option<Process>>> {
        async move {
            let keeper = self.spawn(vm)?;
            // Its VMM, which it starts when it is told to, inherits it.
            if limits.haste == Haste::None
                && let Err(error) = setpriority_process(Pid::from_raw(keeper.pid), NICE)
            {
                tracing::debug!(%error, "a keeper is in as much haste as others");
            }
            Ok(Some(keeper))
        }
        .boxed()
    }

    fn may_live<'a>(&'a self, _: &'a VmId, keeper: Option<&'a Process>) -> BoxFuture<'a, bool> {
        ready(keeper.is_none_or(Process::alive)).boxed()
    }

    fn kill<'a>(&'a self, _: &'a VmId, keeper: Option<&'a Process>) -> BoxFuture<'a, Result<()>> {
        async move {
            let keeper = keeper.ok_or_else(|| Error::new(Kind::Internal, "no keeper is known of this VM"))?;
            match keeper.end().await.map_err(Error::internal)? {
                true => Ok(()),
                false => Err(Error::new(Kind::Gone, "the VM's keeper has ended")),
            }
        }
        .boxed()
    }

    fn settle<'a>(&'a self, _: &'a VmId, keeper: Option<&'a Process>) -> BoxFuture<'a, Result<()>> {
        async move {
            match keeper {
                Some(keeper) => keeper.ended().await.map_err(Error::internal),
                None => Ok(()),
            }
        }
        .boxed()
    }

    /// A process is known by its VM's record alone.
    fn all(&self) -> BoxFuture<'_, Result<Vec<VmId>>> {
        ready(Ok(Vec::new())).boxed()
    }
}
