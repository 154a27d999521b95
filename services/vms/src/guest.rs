//! What the supervisor says to a guest's agent. Everything the agent answers is foreign: bounded, timed, never
//! trusted for more than a message to the VM's owner.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::guest::{Address, Identity, Reply, Request};
use banger_schemas::io::{FrameReader, write_frame};
use tokio::net::UnixStream;

use crate::record::VmRecord;

/// An agent that is alive answers in a second, a busy host's in a few.
const ANSWER: Duration = Duration::from_secs(30);
/// Of what an agent says, this much is shown.
const SENTENCE: usize = 500;

/// A VM that has its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) boot_id: String,
    pub(crate) warnings: Vec<String>,
}

/// One request, one reply, over a stream of its own.
async fn ask(stream: OwnedFd, request: &Request) -> Result<Reply> {
    let exchange = async {
        let mut stream = into_stream(stream)?;
        write_frame(&mut stream, request).await?;
        FrameReader::new(stream).expect::<Reply>().await
    };
    match tokio::time::timeout(ANSWER, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(Error::new(Kind::Guest, format!("the guest's agent failed: {error}"))),
        Err(_) => Err(Error::new(Kind::Guest, format!("the guest's agent did not answer in {} s", ANSWER.as_secs()))),
    }
}

fn into_stream(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Tells the agent who it is.
pub(crate) async fn identify(stream: OwnedFd, vm: &VmRecord) -> Result<Ready> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let identity = Identity {
        vm_id: vm.id.to_string(),
        hostname: vm.name.to_string(),
        machine_id: vm.machine_id,
        clock_ns: u64::try_from(clock.as_nanos()).unwrap_or(0),
        seed: rand::random(),
        address: vm.lease.as_ref().map(Address::from),
        ssh_host_key: vm.host_key.as_ref().map(|key| key.private.clone()),
        authorized_keys: Vec::new(),
        start_init: true,
    };
    match ask(stream, &Request::Identify(Box::new(identity))).await? {
        Reply::Ready(ready) => Ok(Ready {
            boot_id: ready.boot_id.chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').take(36).collect(),
            warnings: ready.warnings.iter().take(8).map(|w| sentence(w)).collect(),
        }),
        Reply::Refused(why) => {
            Err(Error::new(Kind::Guest, format!("the guest refused its identity: {}", sentence(&why))))
        }
        Reply::Status(_) | Reply::Stopping | Reply::Prepared => Err(nonsense()),
    }
}

/// Asks the guest to get ready for an identity that will come.
pub(crate) async fn prepare(stream: OwnedFd) -> Result<()> {
    match ask(stream, &Request::Prepare).await? {
        Reply::Prepared => Ok(()),
        Reply::Refused(why) => Err(Error::new(Kind::Guest, sentence(&why))),
        Reply::Ready(_) | Reply::Status(_) | Reply::Stopping => Err(nonsense()),
    }
}

fn nonsense() -> Error {
    Error::new(Kind::Guest, "the guest's agent answered nonsense")
}

/// Asks the guest to sync and power off.
pub(crate) async fn shutdown(stream: OwnedFd, grace_ms: u32) -> Result<()> {
    match ask(stream, &Request::Shutdown { grace_ms }).await? {
        Reply::Stopping => Ok(()),
        Reply::Refused(why) => Err(Error::new(Kind::Guest, sentence(&why))),
        Reply::Ready(_) | Reply::Status(_) | Reply::Prepared => Err(nonsense()),
    }
}

/// What a guest says, made fit for a terminal: no control characters, not long.
pub(crate) fn sentence(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SENTENCE).collect()
}

/// The last lines of a console, made fit for a terminal.
pub(crate) fn tail(console: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(console);
    let all: Vec<String> = text.lines().map(sentence).filter(|l| !l.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// How a guest ended its VM by itself, as far as its kernel has said: to a VMM, an orderly end and that of a kernel that has
/// failed are both a reset.
pub(crate) fn own_end(console: &[u8]) -> &'static str {
    const PANIC: &[u8] = b"Kernel panic - not syncing";
    match console.windows(PANIC.len()).any(|words| words == PANIC) {
        true => "the guest's kernel has panicked: 'banger vm logs' shows its last words",
        false => "the guest has powered off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_from_an_orderly_end() {
        assert_eq!(own_end(b"[  9.1] reboot: Restarting system\n"), "the guest has powered off");
        assert_eq!(own_end(b""), "the guest has powered off");
        let panic = b"[  9.1] Kernel panic - not syncing: sysrq\n[  9.2] Rebooting in 1 seconds..\n";
        assert!(own_end(panic).contains("panicked"));
    }

    #[test]
    fn a_hostile_console_cannot_reach_the_terminal() {
        assert_eq!(tail(b"one\n\x1b[2Jtwo\r\n\n\x07three\xff\n", 2), "[2Jtwo\nthree\u{fffd}");
        assert_eq!(sentence(&"x".repeat(10_000)).len(), SENTENCE);
    }
}
