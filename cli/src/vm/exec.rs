//! `banger vm exec`: a command in a machine that is up.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use banger_schemas::guest::{Exec, Stdin, Wait};

use crate::attach;
use crate::client::Client;
use crate::error::Failure;

/// What must be up before a command starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WaitFor {
    /// Only banger's agent: the command starts as early as it can
    Agent,
    /// The image's own init has finished its start
    System,
}

impl From<WaitFor> for Wait {
    fn from(wait: WaitFor) -> Wait {
        match wait {
            WaitFor::Agent => Wait::Agent,
            WaitFor::System => Wait::System,
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name or id of the machine
    vm: String,
    /// The command and its arguments [default: a login shell]
    #[arg(last = true)]
    command: Vec<OsString>,
    /// Give the command a terminal (a shell gets one by itself)
    #[arg(short, long)]
    tty: bool,
    /// Where the command runs [default: /root]
    #[arg(long)]
    cwd: Option<OsString>,
    /// Set a variable of the command's environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// What must be up before the command starts
    #[arg(long, value_enum, default_value = "system")]
    wait: WaitFor,
}

/// Variables as they travel.
pub(crate) type Environment = Vec<(Vec<u8>, Vec<u8>)>;

/// `NAME=VALUE` pairs.
pub(crate) fn environment(pairs: &[OsString]) -> Result<Environment, Failure> {
    pairs
        .iter()
        .map(|pair| {
            let bytes = pair.as_bytes();
            match bytes.iter().position(|b| *b == b'=') {
                Some(at) if at > 0 => Ok((bytes[..at].to_vec(), bytes[at + 1..].to_vec())),
                _ => Err(Failure::new(format!("{pair:?} is no variable: write NAME=VALUE"))),
            }
        })
        .collect()
}

pub(crate) async fn run(client: &Client, args: Args) -> Result<u8, Failure> {
    let tty = args.tty || (args.command.is_empty() && attach::has_terminal());
    let exec = Exec {
        argv: args.command.into_iter().map(OsString::into_vec).collect(),
        env: environment(&args.env)?,
        cwd: args.cwd.map(OsString::into_vec),
        tty: tty.then(attach::terminal_size),
        stdin: Stdin::Stream,
        wait: args.wait.into(),
    };
    let stream = attach::start(client, &args.vm, &exec).await?;
    let end = attach::streams(stream, &exec).await?;
    end.explain(&exec);
    Ok(end.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_split_at_the_first_equals_sign() {
        let pairs = environment(&["A=b=c".into(), "B=".into()]).unwrap();
        assert_eq!(pairs, [(b"A".to_vec(), b"b=c".to_vec()), (b"B".to_vec(), vec![])]);
        assert!(environment(&["=x".into()]).is_err() && environment(&["x".into()]).is_err());
    }
}
