//! Finding or starting the background process.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger_bus::Dirs;
use banger_schemas::error::{Error, Kind};
use zbus::Connection;

use super::handover;
use crate::client::embedded_bus;
use crate::error::Failure;

/// Opening records, finding VMs again, six names: a second at most; a loaded host gets more.
const START: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(20);

/// The bus of this user's embedded banger, started if need be.
pub(crate) async fn connect_or_start(dirs: &Dirs) -> Result<Connection, Failure> {
    dirs.prepare()?;
    let begun = Instant::now();
    let mut error = match embedded_bus(dirs).await {
        Ok(bus) if !handover::make_room(&bus).await? => return Ok(bus),
        Ok(_) => Error::new(Kind::Unavailable, "an older banger has not made room"),
        Err(error) => error,
    };
    if error.kind == Kind::InvalidArgument {
        return Err(error.into());
    }
    // One that is about to end may hold the lock for a moment; so this is tried until it works or takes too long.
    while begun.elapsed() < START {
        let log = dirs.state.join("banger.log");
        match spawn(&log)? {
            Said::Ready | Said::Taken => match embedded_bus(dirs).await {
                Ok(bus) => return Ok(bus),
                Err(why) => error = why,
            },
            Said::Failed(why) => {
                return Err(Failure::new(format!("the services did not start: {why}"))
                    .hint(format!("{} has more", log.display())));
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(Failure::new(format!("the services did not start in {} s: {error}", START.as_secs())))
}

/// What the process says of its start.
enum Said {
    Ready,
    /// Another one has the lock.
    Taken,
    Failed(String),
}

fn spawn(log: &std::path::Path) -> Result<Said, Failure> {
    let program = std::env::current_exe()?;
    let log = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let mut child = Command::new(program)
        .arg("embedded")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C in this terminal is not meant for it.
        .process_group(0)
        .spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| Error::internal("no pipe to the services"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        ("ready", _) => Said::Ready,
        ("taken", _) => Said::Taken,
        ("failed", why) => Said::Failed(why.to_owned()),
        _ => Said::Failed("they ended without a word".to_owned()),
    })
}
