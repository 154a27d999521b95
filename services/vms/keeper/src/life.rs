//! A VMM's life, from its first moment to the reason of its end.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use banger_schemas::io::packet::readable;
use banger_schemas::keeper::{Exit, ExitCause};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use crate::backend::{Control, Machine};
use crate::channel::End;
use crate::vm::Vm;

/// What of the VMM's own words is kept.
const MESSAGE: usize = 4 * 1024;
/// For the last words of a VMM that is gone: a child of its own could hold the pipes open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Between the channel's end and the process's, when the process is ending in order.
const ENDING: Duration = Duration::from_secs(1);

/// What a VMM is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// End by your own means, or be killed after this time.
    Quit(Duration),
    /// Be killed, for a reason.
    Kill(ExitCause, Option<String>),
    /// Keep the guest as it is; whoever asks has it killed then.
    Freeze(oneshot::Sender<Result<(), String>>),
}

/// Keeps a VMM until it is gone, and tells how it went.
pub(crate) async fn live(
    vm: Rc<Vm>,
    machine: Machine,
    lease: Option<OwnedFd>,
    kept: Option<File>,
    orders: mpsc::Receiver<Order>,
) {
    let Machine { child, control, agent, console, messages } = machine;
    if let Some(Err(error)) = kept.as_ref().map(|file| vm.console.read_from(file)) {
        tracing::warn!(%error, "what the guest said before is not known");
    }
    let filling = {
        let vm = vm.clone();
        spawn_local(async move { vm.console.fill(console, || vm.heard()).await })
    };
    let tail = spawn_local(tail(messages));
    let channel = {
        let vm = vm.clone();
        spawn_local(async move { vm.channel.run(agent, |there| vm.agent(there)).await })
    };
    let watching = spawn_local(watch_over(vm.clone(), channel, lease));
    let (status, ended) = until_gone(&vm, child, control, orders).await;
    watching.abort();
    let _ = timeout(LAST_WORDS, filling).await;
    vm.console.end();
    if let Some(Err(error)) = kept.map(|file| vm.console.write_to(file)) {
        tracing::warn!(%error, "the console is not kept");
    }
    let said = timeout(LAST_WORDS, tail).await.ok().and_then(Result::ok).unwrap_or_default();
    vm.exited(match ended {
        Some((cause, why)) => Exit { cause, message: why.unwrap_or(said) },
        None => Exit { cause: cause_of(status), message: said },
    });
}

/// Waits for what ends a VM from outside its VMM: a broken channel, or the end of a lease.
async fn watch_over(vm: Rc<Vm>, channel: tokio::task::JoinHandle<End>, lease: Option<OwnedFd>) {
    let lease = async {
        match lease {
            // What cannot be waited for is no pidfd, and a lease to nobody ends at once.
            Some(pidfd) => drop(readable(pidfd).await),
            None => std::future::pending().await,
        }
    };
    let (cause, why) = tokio::select! {
        end = channel => match end {
            Ok(End::Nonsense(what)) => (ExitCause::Agent, Some(what)),
            // As a VMM ends whose guest has powered off.
            Ok(End::Halted) => (ExitCause::Status(0), None),
            Ok(End::Closed) => {
                tokio::time::sleep(ENDING).await;
                (ExitCause::Agent, Some("the VMM closed the guest's channel and went on".into()))
            }
            Err(_) => (ExitCause::Agent, Some("the agent broke the protocol".into())),
        },
        () = lease => (ExitCause::Lease, None),
    };
    vm.order(Order::Kill(cause, why)).await;
}

/// Waits for the process's end and carries out orders meanwhile. The first order is the reason, if there was one.
async fn until_gone(
    vm: &Rc<Vm>,
    mut child: Child,
    mut control: Option<Box<dyn Control>>,
    mut orders: mpsc::Receiver<Order>,
) -> (Option<ExitStatus>, Option<(ExitCause, Option<String>)>) {
    let killed = control.is_none();
    let mut ended = None;
    let mut deadline = None::<Instant>;
    loop {
        let late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let kill = tokio::select! {
            status = child.wait() => return (status.ok(), ended),
            () = late => true,
            order = orders.recv() => match order {
                Some(Order::Quit(grace)) => {
                    ended = ended.or(Some((ExitCause::Asked, None)));
                    let until = Instant::now() + grace;
                    deadline = Some(deadline.map_or(until, |earlier| earlier.min(until)));
                    if let Some(control) = control.take() {
                        spawn_local(quit(vm.clone(), control));
                    }
                    killed
                }
                Some(Order::Kill(cause, why)) => {
                    ended = ended.or(Some((cause, why)));
                    true
                }
                Some(Order::Freeze(told)) => {
                    ended = ended.or(Some((ExitCause::Asked, None)));
                    match control.take() {
                        Some(control) => drop(spawn_local(freeze(control, told))),
                        None => drop(told.send(Err("its VMM freezes no guests".into()))),
                    }
                    false
                }
                None => false,
            },
        };
        if kill {
            deadline = None;
            // It fails only when the process has ended, which the next round notices.
            let _ = child.start_kill();
        }
    }
}

/// Asks the VMM to end. One that cannot be asked is not waited for.
async fn quit(vm: Rc<Vm>, mut control: Box<dyn Control>) {
    if let Err(error) = control.quit().await {
        tracing::warn!(%error, "the VMM does not end by its own means");
        vm.order(Order::Kill(ExitCause::Asked, None)).await;
    }
}

/// Whoever has asked may have stopped waiting.
async fn freeze(mut control: Box<dyn Control>, told: oneshot::Sender<Result<(), String>>) {
    drop(told.send(control.freeze().await.map_err(|error| error.to_string())));
}

/// The last of what was written, as text without control characters.
pub(crate) async fn tail(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = VecDeque::new();
    let mut chunk = [0; MESSAGE];
    while let Ok(got @ 1..) = from.read(&mut chunk).await {
        kept.extend(&chunk[..got]);
        kept.drain(..kept.len().saturating_sub(MESSAGE));
    }
    let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
    text.trim().replace(|c: char| c.is_control() && c != '\n', " ")
}

fn cause_of(status: Option<ExitStatus>) -> ExitCause {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.and_then(|s| s.code()), status.and_then(|s| s.signal())) {
        (Some(code), _) => ExitCause::Status(byte(code)),
        (None, signal) => ExitCause::Signal(byte(signal.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_words_are_bounded_and_printable() {
        assert_eq!(tail(b"qemu: \x1b[31mno memory\r\n".as_slice()).await, "qemu:  [31mno memory");
        let endless = b"0123456789\n".repeat(10_000);
        let kept = tail(endless.as_slice()).await;
        assert!(kept.len() <= MESSAGE && kept.ends_with("0123456789"));
    }

    #[test]
    fn an_exit_is_a_status_or_a_signal() {
        assert_eq!(cause_of(Some(ExitStatus::from_raw(3 << 8))), ExitCause::Status(3));
        assert_eq!(cause_of(Some(ExitStatus::from_raw(11))), ExitCause::Signal(11));
    }
}
