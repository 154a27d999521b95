//! `vm run --rm -- true` against the VMM alone: the same command line, files and TAP, until its agent's hello.

use std::time::{Duration, Instant};

use banger_integration::Banger;
use banger_keeper::backend::{self, Files};
use banger_keeper::tsc::Tsc;
use banger_schemas::guest::hello::{HostHello, Scanner};
use banger_schemas::keeper::{Backend, Launch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::cli::wall;
use crate::client::{self, Parts};
use crate::stats::interleaved;
use crate::table::{Goal, Table};

pub(crate) const IMAGE: &str = "debian-tiny";
pub(crate) const VMM: &str = "/usr/bin/qemu-system-x86_64";

pub(crate) fn measure(banger: &Banger, rounds: usize, table: &mut Table) {
    let ours = || wall(banger.command(["vm", "run", "--rm", "--image", IMAGE, "--", "true"]));
    let bare = || crate::block_on(bare(banger));
    // The first of each makes templates and fills caches.
    ours();
    bare();
    let (ours, theirs) = interleaved(rounds, ours, bare);
    table.section("from nothing to `true` and back");
    table.compare("`vm run --rm -- true`", ours.median(), "VMM to hello", theirs.median(), Some(Goal::AtMost(1.15)));
    table.compare("the fastest of each", ours.quantile(0.0), "VMM to hello", theirs.quantile(0.0), None);
}

/// What the services say a machine of default size is, with nothing to keep or to lease.
pub(crate) fn launch(vmm: &str, mac: Option<[u8; 6]>) -> Launch {
    Launch {
        backend: Backend::QemuTcg,
        vmm: vmm.to_owned(),
        vcpus: 2,
        memory_mib: 1024,
        mac,
        tap: mac.is_some(),
        leased: false,
        keeps_console: false,
        volatile: true,
    }
}

/// The keeper's own code starts the VMM, so that the command line is the same; there is no keeper.
pub(crate) async fn bare(banger: &Banger) -> Duration {
    let bus = client::connect(banger).await;
    let parts = Parts::make(&bus, IMAGE).await;
    let [kernel, initramfs, image, system, work, tap] = parts.open().await;
    let files = Files { kernel, initramfs, image, system, work, tap: Some(tap), memory: None };
    // The rate of the clock is measured beforehand.
    let vmm = backend::of(Backend::QemuTcg, Tsc::start());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let launch = launch(VMM, Some(parts.lease.mac));

    let begun = Instant::now();
    let mut machine = vmm.launch(&launch, files).await.unwrap();
    // Somebody has to read it, or the guest waits for the console.
    let console = tokio::spawn(async move { tokio::io::copy(&mut machine.console, &mut tokio::io::sink()).await });
    hello(&mut machine.agent.connect().await.unwrap()).await;
    let took = begun.elapsed();

    machine.child.kill().await.unwrap();
    console.await.unwrap().unwrap();
    parts.release().await;
    took
}

async fn hello(agent: &mut UnixStream) {
    let nonce = 0x6265_6e63_6821;
    agent.write_all(&HostHello::new(nonce, 1).to_bytes()).await.unwrap();
    let mut scanner = Scanner::for_host();
    while scanner.agent_hello(agent.read_u8().await.unwrap(), nonce).is_none() {}
}
