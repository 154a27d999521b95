//! banger's guest agent: `/init` of the initramfs, and the host's hand in the guest ever after.
//!
//! Knows no D-Bus and no policy: it does what the host says over one channel (`banger_schemas::guest`).

mod agent;
mod boot;
mod channel;
mod exec;
mod guest;
mod identity;
mod init;
mod log;
mod modules;
mod pid1;
mod root;
mod serve;
mod shutdown;
mod start;
mod sys;
#[cfg(test)]
mod testing;
mod transport;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    if !nix::unistd::getpid().eq(&nix::unistd::Pid::from_raw(1)) {
        log::error("this is the init of a banger VM; it runs as PID 1 and nowhere else");
        return ExitCode::FAILURE;
    }
    boot::run()
}
