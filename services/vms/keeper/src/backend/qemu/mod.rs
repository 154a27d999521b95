//! QEMU's `microvm` machine, under KVM or emulated.

mod args;
mod qmp;

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use banger_schemas::keeper::{Backend as Kind, Launch};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::net::UnixStream;

use super::process::{self, Surroundings};
use super::{Agent, Backend, Control, Files, Machine, pair};
use crate::tsc::Tsc;
use args::Numbers;
use qmp::Qmp;

/// QEMU.
#[derive(Debug)]
pub struct Qemu {
    pub(super) tsc: Tsc,
}

impl Backend for Qemu {
    fn launch<'a>(&'a self, launch: &'a Launch, files: Files) -> LocalBoxFuture<'a, io::Result<Machine>> {
        async move {
            let tsc_khz = if launch.backend == Kind::QemuTcg { self.tsc.khz().await } else { None };
            start(launch, files, tsc_khz)
        }
        .boxed_local()
    }
}

impl Control for Qmp<UnixStream> {
    fn quit(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        self.execute("quit").boxed_local()
    }
}

fn start(launch: &Launch, files: Files, tsc_khz: Option<u32>) -> io::Result<Machine> {
    let (agent, agent_vmm) = pair()?;
    let (console, console_vmm) = pair()?;
    let (qmp, qmp_vmm) = pair()?;
    let numbers = Numbers {
        kernel: files.kernel.as_raw_fd(),
        initramfs: files.initramfs.as_raw_fd(),
        image: files.image.as_raw_fd(),
        system: files.system.as_raw_fd(),
        work: files.work.as_raw_fd(),
        tap: files.tap.as_ref().map(AsRawFd::as_raw_fd),
        agent: agent_vmm.as_raw_fd(),
        console: console_vmm.as_raw_fd(),
        qmp: qmp_vmm.as_raw_fd(),
    };
    let arguments = args::arguments(launch, &numbers, tsc_khz);
    let mut passed = vec![files.kernel, files.initramfs, files.image, files.system, files.work];
    passed.extend(files.tap);
    passed.extend([agent_vmm, console_vmm, qmp_vmm]);
    let surroundings = Surroundings { folder: Path::new("/"), stdout: None, gate: None };
    let (child, messages) = process::spawn(&launch.vmm, &arguments, passed, surroundings)?;
    let agent = Agent::Port(agent.into_std()?);
    Ok(Machine { child, control: Some(Box::new(Qmp::new(qmp))), agent, console, messages })
}
