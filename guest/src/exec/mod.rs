//! Running a command: from its argv to its exit status, with every byte between.

mod command;
mod input;
mod lookup;
mod output;
mod passwd;
mod process;
mod queue;
mod running;
mod terminal;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use banger_schemas::guest::{Exec, ExecInput, ExecOutput, Wait};
use banger_schemas::io::{FrameReader, write_frame};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use crate::init::Progress;
use crate::wire::Wire;
use input::Input;
use output::Output;
use process::Process;

pub(crate) use running::Running;

/// How long a command whose host has gone may take to end after `SIGHUP`.
const HANG_UP: Duration = Duration::from_secs(5);

/// Serves one command over its stream.
///
/// # Errors
/// When the stream ended before the command did; the command has been ended too then.
pub(crate) async fn serve(
    exec: Exec,
    mut frames: FrameReader<Wire>,
    mut wire: Wire,
    progress: &Progress,
    running: &Running,
) -> io::Result<()> {
    let mut early = None;
    if exec.wait == Wait::System {
        early = until_up(progress, &mut frames).await?;
    }
    let end = match Process::start(&exec) {
        Ok(process) => conduct(process, frames, early, wire.clone(), running).await?,
        Err(failure) => ExecOutput::Failed(failure),
    };
    write_frame(&mut wire, &end).await?;
    wire.shutdown().await
}

/// Waits for the system, but not for a host that leaves meanwhile. Gives back the input that came too early.
async fn until_up(progress: &Progress, frames: &mut FrameReader<Wire>) -> io::Result<Option<ExecInput>> {
    let mut early = None;
    loop {
        tokio::select! {
            biased;
            () = progress.up() => return Ok(early),
            frame = frames.expect::<ExecInput>(), if early.is_none() => early = Some(frame?),
        }
    }
}

/// Carries input and output until the command has ended and is silent; gives back how it ended.
async fn conduct(
    process: Process,
    frames: FrameReader<Wire>,
    early: Option<ExecInput>,
    mut wire: Wire,
    running: &Running,
) -> io::Result<ExecOutput> {
    let Process { mut child, group, stdin, outputs, terminal } = process;
    let _listed = running.enter(&group);
    let mut input = Input::new(frames, wire.clone(), stdin, terminal, group.clone());
    let mut output = Output::new(outputs);
    let talk = async {
        let started = ExecOutput::Started { pid: group.pid() };
        write_frame(&mut wire, &started).await?;
        output.forward(&mut child, &group, &mut wire).await
    };
    let result = tokio::select! {
        result = talk => result,
        error = input.carry(early) => Err(error),
    };
    if result.is_err() && !group.is_over() {
        // Closed first: who writes on, or reads on, learns that nobody is there.
        drop((input, output));
        group.signal(Signal::SIGHUP as i32);
        group.signal(Signal::SIGCONT as i32);
        if tokio::time::timeout(HANG_UP, child.wait()).await.is_err() {
            group.signal(Signal::SIGKILL as i32);
            child.wait().await?;
        }
        group.over();
    }
    result
}
