//! A mount namespace for one banger: what is mounted there is seen by its commands and services alone.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A namespace that lives as long as this.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Prepared by a script of root's.
    pub(crate) fn prepared_by(script: &str) -> Self {
        let held = format!("{script}\necho ready\nexec sleep infinity");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &held])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        holder.stdout.take().unwrap().read_exact(&mut ready).expect("the namespace is prepared");
        Namespace { holder }
    }

    /// What puts a command into it.
    pub(crate) fn entrance(&self) -> Vec<String> {
        ["nsenter", "--mount", "--target", &self.holder.id().to_string(), "--"].map(str::to_owned).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// An exit status as shells put it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
