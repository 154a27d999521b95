//! Sessions1: commands in guests.

use zbus::proxy;
use zbus::wire::OwnedFd;

use crate::error::{Error, Result};
use crate::guest::{Exec, Stdin, TtySize, Wait};
use crate::options::{Dict, DictBuilder, Options};

pub const NAME: &str = "dev.banger.Sessions1";
pub const PATH: &str = "/dev/banger/Sessions1";
pub const MANAGER: &str = "dev.banger.Sessions1.Manager";

/// Commands in guests.
#[proxy(
    interface = "dev.banger.Sessions1.Manager",
    default_service = "dev.banger.Sessions1",
    default_path = "/dev/banger/Sessions1"
)]
pub trait Manager {
    /// Runs a command in a VM (name, id or unique beginning of an id). `spec`: `argv aay` (empty: root's login
    /// shell), `env a(ayay)`, `cwd ay`, `tty (qq)` (rows, columns), `stdin b` (true), `wait s` (`system` or
    /// `agent`). Returns a stream socket that carries frames of the guest protocol: `ExecInput` to the guest,
    /// `ExecOutput` from it. No service sits in between: it outlives them all.
    fn exec(&self, vm: &str, spec: Dict, options: Dict) -> zbus::Result<OwnedFd>;
}

/// An [`Exec`] as it goes over the bus.
pub fn exec_to_dict(exec: &Exec) -> Dict {
    DictBuilder::default()
        .set("argv", exec.argv.clone())
        .set("env", exec.env.clone())
        .set_some("cwd", exec.cwd.clone())
        .set_some("tty", exec.tty.map(|t| (t.rows, t.cols)))
        .set("stdin", exec.stdin == Stdin::Stream)
        .set("wait", if exec.wait == Wait::System { "system" } else { "agent" })
        .build()
}

/// An [`Exec`] as it is understood.
pub fn exec_from_dict(dict: Dict) -> Result<Exec> {
    let mut options = Options::new(dict)?;
    let exec = Exec {
        argv: options.take("argv")?.unwrap_or_default(),
        env: options.take("env")?.unwrap_or_default(),
        cwd: options.take("cwd")?,
        tty: options.take::<(u16, u16)>("tty")?.map(|(rows, cols)| TtySize { rows, cols }),
        stdin: if options.take("stdin")?.unwrap_or(true) { Stdin::Stream } else { Stdin::Null },
        wait: match options.take::<String>("wait")?.as_deref() {
            None | Some("system") => Wait::System,
            Some("agent") => Wait::Agent,
            Some(other) => return Err(Error::invalid(format!("cannot wait for {other:?}: 'system' or 'agent'"))),
        },
    };
    options.finish()?;
    let nul = |bytes: &Vec<u8>| bytes.contains(&0);
    let texts = exec.argv.iter().chain(exec.env.iter().flat_map(|(k, v)| [k, v])).chain(exec.cwd.iter());
    if { texts }.any(nul) {
        return Err(Error::invalid("an argument, variable or path cannot contain a NUL byte"));
    }
    Ok(exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_the_bus_byte_for_byte() {
        let exec = Exec {
            argv: vec![b"printf".to_vec(), b"\xff\n".to_vec(), vec![]],
            env: vec![(b"A".to_vec(), b"=".to_vec())],
            cwd: Some(b"/tmp".to_vec()),
            tty: Some(TtySize { rows: 24, cols: 80 }),
            stdin: Stdin::Null,
            wait: Wait::Agent,
        };
        assert_eq!(exec_from_dict(exec_to_dict(&exec)), Ok(exec));
    }

    #[test]
    fn nul_bytes_are_refused() {
        let dict = DictBuilder::default().set("argv", vec![b"a\0b".to_vec()]).build();
        assert!(exec_from_dict(dict).is_err());
    }
}
