//! Starting the command with its streams: three pipes, or one terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::rc::Rc;

use banger_schemas::guest::{Exec, ExecFailure, ExecOutput, Stdin, TtySize};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

use super::command;
use super::running::Group;
use super::terminal::Terminal;
use crate::sys;

pub(super) type Source = Box<dyn AsyncRead + Unpin>;
pub(super) type Sink = Box<dyn AsyncWrite + Unpin>;
/// Where bytes come from, and the frame that they travel in.
pub(super) type Outputs = Vec<(Source, fn(Vec<u8>) -> ExecOutput)>;

/// What a pipe holds. One read or write fills the usual 64 KiB, so that command and agent wait for each other by
/// turns, and under emulation a wait costs more than the bytes.
const PIPE: i32 = 256 * 1024;

/// A command that runs.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) group: Group,
    pub(super) stdin: Option<Sink>,
    pub(super) outputs: Outputs,
    pub(super) terminal: Option<Rc<Terminal>>,
}

impl Process {
    pub(super) fn start(exec: &Exec) -> Result<Process, ExecFailure> {
        let command = command::build(exec)?;
        match exec.tty {
            Some(size) => Process::on_terminal(command, size),
            None => Process::on_pipes(command, exec.stdin),
        }
    }

    fn on_pipes(mut command: Command, stdin: Stdin) -> Result<Process, ExecFailure> {
        command.stdin(if stdin == Stdin::Stream { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, group) = spawn(command, false)?;
        let (stdin, stdout) = (child.stdin.as_ref().map(AsFd::as_fd), child.stdout.as_ref().map(AsFd::as_fd));
        for pipe in [stdin, stdout].into_iter().flatten() {
            // Without it everything works, and slower.
            let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
        }
        let mut outputs: Outputs = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            outputs.push((Box::new(stdout), ExecOutput::Stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            outputs.push((Box::new(stderr), ExecOutput::Stderr));
        }
        let stdin = child.stdin.take().map(|stdin| Box::new(stdin) as Sink);
        Ok(Process { child, group, stdin, outputs, terminal: None })
    }

    fn on_terminal(mut command: Command, size: TtySize) -> Result<Process, ExecFailure> {
        let (terminal, slave) = Terminal::open(size).map_err(other)?;
        let share = |slave: &OwnedFd| slave.try_clone().map(Stdio::from).map_err(other);
        command.stdin(share(&slave)?).stdout(share(&slave)?).stderr(slave);
        let (child, group) = spawn(command, true)?;
        let terminal = Rc::new(terminal);
        let stdin = Box::new(terminal.handle()) as Sink;
        let outputs: Outputs = vec![(Box::new(terminal.handle()), ExecOutput::Stdout)];
        Ok(Process { child, group, stdin: Some(stdin), outputs, terminal: Some(terminal) })
    }
}

fn spawn(mut command: Command, terminal: bool) -> Result<(Child, Group), ExecFailure> {
    sys::process::lead_session(&mut command, terminal);
    // The command, and with it our copies of the terminal, is dropped here: the last writer must be the child.
    let child = tokio::process::Command::from(command).spawn().map_err(not_started)?;
    // A child that was not waited for has a pid.
    let pid = child.id().ok_or_else(|| ExecFailure::Other("the command has no process id".into()))?;
    Ok((child, Group::new(pid)))
}

/// The program was found before, so "not found" now means what it needs itself.
fn not_started(error: io::Error) -> ExecFailure {
    match error.kind() {
        io::ErrorKind::NotFound => ExecFailure::NotExecutable("its interpreter or loader does not exist".into()),
        io::ErrorKind::PermissionDenied => ExecFailure::NotExecutable("permission denied".into()),
        _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => {
            ExecFailure::NotExecutable("not a program of this machine".into())
        }
        _ => other(error),
    }
}

fn other(error: io::Error) -> ExecFailure {
    ExecFailure::Other(error.to_string())
}
