//! QEMU's `microvm` machine, under KVM or emulated.

mod args;
mod qmp;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use banger_schemas::keeper::{Backend as Kind, Launch};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::net::UnixStream;

use super::{Backend, Control, Files, Machine, process};
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
            let tsc_khz = match launch.backend {
                Kind::QemuTcg => self.tsc.khz().await,
                Kind::QemuKvm => None,
            };
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
    let (child, messages) = process::spawn(&launch.vmm, &arguments, passed)?;
    Ok(Machine { child, control: Box::new(Qmp::new(qmp)), agent, console, messages })
}

/// Our end, known to the runtime, and the VMM's.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
