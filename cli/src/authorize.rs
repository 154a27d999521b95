//! Asking for a password in this terminal: a call that was refused is made once more, with polkit's own text agent
//! at hand and the leave to wait for a person. Knows no method by name.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use banger_schemas::error::{Error, Kind};
use command_fds::{CommandFdExt, FdMapping};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::sync::OnceCell;
use zbus::proxy::MethodFlags;
use zbus::wire::{DynamicDeserialize, DynamicType};

use crate::attach::has_terminal;
use crate::view::note;

/// The agent registers itself in some ten milliseconds.
const START: Duration = Duration::from_secs(5);
/// Where the agent says that it is ready.
const NOTIFY_FD: i32 = 3;

/// Whether somebody may be asked for a password, if it takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Whoever sits at this terminal, if it is one.
    Terminal,
    Nobody,
}

/// How calls are made that polkit may have a question about.
#[derive(Debug)]
pub(crate) struct Asker {
    may_ask: bool,
    /// Whether the agent runs, once it was tried.
    agent: OnceCell<bool>,
}

impl Asker {
    pub(crate) fn new(ask: Ask) -> Self {
        Asker { may_ask: ask == Ask::Terminal && has_terminal(), agent: OnceCell::new() }
    }

    /// Calls a method. A refusal has changed nothing, so the call can be made again.
    pub(crate) async fn call<B, R>(&self, proxy: &zbus::Proxy<'_>, method: &'static str, body: &B) -> zbus::Result<R>
    where
        B: Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let refusal = match proxy.call(method, body).await {
            Err(error) if self.may_ask && may_be_a_refusal(&error) => error,
            outcome => return outcome,
        };
        if !*self.agent.get_or_init(agent).await {
            return Err(refusal);
        }
        // A call with flags has no deadline: it takes as long as a person does.
        let answer = proxy.call_with_flags(method, MethodFlags::ALLOW_INTERACTIVE_AUTH, body).await?;
        answer.ok_or(zbus::Error::InvalidReply)
    }
}

/// What others own is not there for who may not see it.
fn may_be_a_refusal(error: &zbus::Error) -> bool {
    let zbus::Error::MethodError(name, ..) = error else { return false };
    matches!(Kind::from_name(name), Some(Kind::NotAuthorized | Kind::NotFound))
}

/// Starts the agent for this very process, and waits until polkit knows of it.
async fn agent() -> bool {
    match start().await {
        Ok(()) => true,
        Err(error) => {
            note(&format!(
                "banger: nobody can be asked for a password here: {} (pkttyagent is part of polkit)",
                error.message
            ));
            false
        }
    }
}

async fn start() -> Result<(), Error> {
    let (ready, notify) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Error::internal)?;
    run(notify).map_err(|e| Error::new(Kind::Unavailable, format!("pkttyagent does not start: {e}")))?;
    // It closes the descriptor when it is registered, and when it ends.
    let mut ready = tokio::fs::File::from_std(ready.into());
    match tokio::time::timeout(START, ready.read_to_end(&mut Vec::new())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::internal(error)),
        Err(_) => Err(Error::new(Kind::Timeout, "pkttyagent does not register itself")),
    }
}

/// The agent ends with this process: setpriv(1) sees to that without code between fork and exec.
fn run(notify: OwnedFd) -> std::io::Result<()> {
    let own = std::process::id().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", "pkttyagent", "--fallback", "--process", &own]);
    command.args(["--notify-fd", &NOTIFY_FD.to_string()]);
    command
        .fd_mappings(vec![FdMapping { parent_fd: notify, child_fd: NOTIFY_FD }])
        .map_err(std::io::Error::other)?
        .stdout(Stdio::null())
        .spawn()
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &'static str) -> zbus::Error {
        let call = zbus::Message::method_call("/", "M").build(&()).unwrap();
        let reply = zbus::Message::error(&call.header(), name).build(&("why",)).unwrap();
        zbus::Error::from(reply)
    }

    #[test]
    fn only_a_refusal_is_a_reason_to_ask() {
        assert!(may_be_a_refusal(&answer("dev.banger.Error.NotAuthorized")));
        assert!(may_be_a_refusal(&answer("dev.banger.Error.NotFound")));
        assert!(!may_be_a_refusal(&answer("dev.banger.Error.Exists")));
        assert!(!may_be_a_refusal(&answer("org.freedesktop.DBus.Error.ServiceUnknown")));
    }
}
