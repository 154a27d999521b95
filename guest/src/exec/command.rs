//! From a request to a command that can be spawned: program, environment, working directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use banger_schemas::guest::{Exec, ExecFailure};

use super::lookup;
use super::passwd::Account;

const HOME: &str = "/root";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command, still without its standard streams.
pub(super) fn build(exec: &Exec) -> Result<Command, ExecFailure> {
    let account = Account::of_root();
    let cwd = Path::new(exec.cwd.as_deref().map_or(OsStr::new(HOME), OsStr::from_bytes));
    if !cwd.is_dir() {
        return Err(ExecFailure::Other(format!("the guest has no directory {}", cwd.display())));
    }
    let env = environment(exec, &account)?;
    let search = env.get(OsStr::new("PATH")).map_or(b"".as_slice(), |path| path.as_bytes());
    let mut command = match exec.argv.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(lookup::find(program, search, cwd)?);
            command.arg0(OsStr::from_bytes(program)).args(arguments.iter().map(|word| OsStr::from_bytes(word)));
            command
        }
        None => login_shell(&account, cwd)?,
    };
    if exec.argv.iter().flatten().any(|byte| *byte == 0) {
        return Err(ExecFailure::Other("an argument holds a NUL byte".into()));
    }
    command.env_clear().envs(env).current_dir(cwd);
    Ok(command)
}

/// root's own shell, or the one that every system has.
fn login_shell(account: &Account, cwd: &Path) -> Result<Command, ExecFailure> {
    let path = lookup::find(account.shell.as_bytes(), b"", cwd).or_else(|_| lookup::find(b"/bin/sh", b"", cwd))?;
    // The dash is what makes a shell a login shell.
    let mut name = OsString::from("-");
    name.push(path.file_name().unwrap_or_default());
    let mut command = Command::new(path);
    command.arg0(name);
    Ok(command)
}

fn environment(exec: &Exec, account: &Account) -> Result<BTreeMap<OsString, OsString>, ExecFailure> {
    let defaults = [
        ("PATH", PATH),
        ("HOME", HOME),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", &account.shell),
        ("LANG", "C.UTF-8"),
    ];
    let mut env: BTreeMap<OsString, OsString> = defaults.iter().map(|(k, v)| (k.into(), v.into())).collect();
    if exec.tty.is_some() {
        env.insert("TERM".into(), "xterm".into());
    }
    for (name, value) in &exec.env {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
            let name = String::from_utf8_lossy(name);
            return Err(ExecFailure::Other(format!("{name:?} cannot be set in an environment")));
        }
        env.insert(OsString::from_vec(name.clone()), OsString::from_vec(value.clone()));
    }
    Ok(env)
}
