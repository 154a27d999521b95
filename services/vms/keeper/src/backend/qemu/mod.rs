//! QEMU's `microvm` machine, under KVM or emulated.

mod args;
mod qmp;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use banger_schemas::keeper::{Backend as Kind, Launch};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::process::{self, Surroundings};
use super::{Agent, Backend, Control, Files, Machine, Memory, pair};
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
            start(launch, files, tsc_khz).await
        }
        .boxed_local()
    }
}

/// The way to a QEMU that runs.
struct Monitor {
    qmp: Qmp,
    /// Where the state of its devices goes when its guest is frozen.
    devices: Option<OwnedFd>,
}

impl Control for Monitor {
    fn quit(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        self.qmp.execute("quit", Value::Null).boxed_local()
    }

    fn freeze(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        async {
            let devices = self.devices.take().ok_or_else(|| io::Error::other("it was not launched to be frozen"))?;
            self.qmp.give(STATE, devices.as_fd()).await?;
            self.qmp.execute("migrate", json!({ "uri": format!("fd:{STATE}") })).await?;
            self.qmp.migrated().await
        }
        .boxed_local()
    }
}

/// The devices' state among the VMM's open files.
const STATE: &str = "devices";

/// Memory that is a file stays where it is when the rest migrates: with this a whole guest is kept in milliseconds.
async fn keep_memory(qmp: &mut Qmp) -> io::Result<()> {
    let capability = |name: &str| json!({ "capability": name, "state": true });
    let capabilities = [capability("x-ignore-shared"), capability("events")];
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": capabilities })).await
}

/// Lets a frozen guest go on. It was running when it was frozen, so it runs as soon as its state is there.
async fn thaw(qmp: &mut Qmp, devices: &OwnedFd) -> io::Result<()> {
    qmp.give(STATE, devices.as_fd()).await?;
    qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{STATE}") })).await?;
    qmp.migrated().await
}

async fn start(launch: &Launch, files: Files, tsc_khz: Option<u32>) -> io::Result<Machine> {
    let (agent, agent_vmm) = pair()?;
    let (console, console_vmm) = pair()?;
    let (qmp, qmp_vmm) = pair()?;
    let (ram, devices, frozen) = match files.memory {
        Some(Memory { ram, devices, frozen }) => (Some(ram), Some(devices), frozen),
        None => (None, None, false),
    };
    let numbers = Numbers {
        kernel: files.kernel.as_raw_fd(),
        initramfs: files.initramfs.as_raw_fd(),
        image: files.image.as_raw_fd(),
        system: files.system.as_raw_fd(),
        work: files.work.as_raw_fd(),
        tap: files.tap.as_ref().map(AsRawFd::as_raw_fd),
        ram: ram.as_ref().map(|ram| (ram.as_raw_fd(), frozen)),
        agent: agent_vmm.as_raw_fd(),
        console: console_vmm.as_raw_fd(),
        qmp: qmp_vmm.as_raw_fd(),
    };
    let arguments = args::arguments(launch, &numbers, tsc_khz);
    let mut passed = vec![files.kernel, files.initramfs, files.image, files.system, files.work];
    passed.extend(files.tap);
    passed.extend(ram);
    passed.extend([agent_vmm, console_vmm, qmp_vmm]);
    let surroundings = Surroundings { folder: Path::new("/"), stdout: None, gate: None };
    let (child, messages) = process::spawn(&launch.vmm, &arguments, passed, surroundings)?;
    let mut qmp = Qmp::new(qmp);
    if let Some(devices) = &devices {
        let told = async {
            keep_memory(&mut qmp).await?;
            if frozen { thaw(&mut qmp, devices).await } else { Ok(()) }
        };
        if let Err(error) = told.await {
            return Err(process::failed(child, messages, error).await);
        }
    }
    let agent = Agent::Port(agent.into_std()?);
    let monitor = Monitor { qmp, devices: devices.filter(|_| !frozen) };
    Ok(Machine { child, control: Some(Box::new(monitor)), agent, console, messages })
}
