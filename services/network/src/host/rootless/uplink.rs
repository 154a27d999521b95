//! The uplink: slirp4netns, which turns the namespace's packets into ordinary sockets of the user's.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use banger_bus::process::Process;

use super::process::{self, forget};
use super::slirp::Slirp;
use super::{Places, helper, readable};
use crate::host::{Error, Refusal, tools};
use crate::plan::{MTU, UPLINK};

const SOCKET: &str = "uplink.sock";

/// Where the control socket is.
pub(super) fn socket(places: &Places) -> PathBuf {
    places.runtime.join(SOCKET)
}

/// The recorded uplink, if its process lives.
pub(super) fn find(places: &Places) -> Result<Option<Process>, Error> {
    let record = record(places);
    Ok(readable(process::recorded(&record), &record)?.filter(Process::alive))
}

/// Starts one for this holder. Walled in if the machine allows that, and otherwise as it is.
pub(super) async fn start(places: &Places, holder: &Process) -> Result<Process, Error> {
    let slirp = tools::find("slirp4netns").ok_or(Refusal::SlirpMissing)?;
    let folder = &places.runtime;
    // The socket's name is relative, since its whole path may be longer than an address holds.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(Error::io(folder.display().to_string()))?;
    let (slirp, mtu, pid) = (slirp.to_string_lossy(), format!("--mtu={MTU}"), holder.pid.to_string());
    let plain = [&*slirp, "--configure", &mtu, "--disable-host-loopback", "--ready-fd=0", "--api-socket", SOCKET];
    let walls: &[&str] = &["--enable-sandbox", "--enable-seccomp"];
    let target = [&*pid, UPLINK];
    let attempt = async |walls: &[&str]| {
        forget(&socket(places)).map_err(Error::io(SOCKET))?;
        helper::start(&places.helper, &record(places), folder, &[&plain, walls, &target].concat()).await
    };
    let started = match attempt(walls).await {
        Ok(started) => started,
        Err(walled) => {
            attempt(&[]).await.map_err(|plain| Error::Uplink(format!("{walled}; without walls: {plain}")))?
        }
    };
    // slirp4netns was given a bare pid; it is the holder's if the holder still lives.
    if holder.alive() { Ok(started) } else { Err(Error::NoNamespace) }
}

/// Whether it works: its socket answers.
pub(super) async fn works(places: &Places) -> bool {
    Slirp::at(socket(places)).list().await.is_ok()
}

/// Ends it, and removes what it left.
pub(super) async fn end(places: &Places) -> Result<(), Error> {
    if let Some(uplink) = find(places)? {
        uplink.end().await.map_err(Error::io("ending the uplink"))?;
    }
    forget(&socket(places)).map_err(Error::io(SOCKET))?;
    forget(&record(places)).map_err(Error::io("the uplink's record"))
}

/// Walls it was started without; read off the process itself.
pub(super) fn missing_walls(uplink: &Process) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", uplink.pid)).unwrap_or_default();
    let filtered = status.lines().any(|line| line.trim_end() == "Seccomp:\t2");
    if filtered { Vec::new() } else { vec!["slirp4netns runs without its seccomp filter".to_owned()] }
}

/// Where its record is.
pub(super) fn record(places: &Places) -> PathBuf {
    places.state.join("uplink.json")
}
