//! A D-Bus client of a banger, with nothing in it but the calls.

use std::os::fd::OwnedFd;

use banger_integration::Banger;
use banger_schemas::guest::{Exec, ExecInput, ExecOutput, Stdin, Wait};
use banger_schemas::io::{FrameReader, write_frame};
use banger_schemas::job::{JobProxy, outcome};
use banger_schemas::options::Dict;
use banger_schemas::vms::{self, Spec, VmProxy};
use banger_schemas::{images, network, sessions, storage};
use tokio::net::UnixStream;
use zbus::Connection;
use zbus::proxy::CacheProperties;
use zbus::wire::OwnedObjectPath;

/// A connection to this banger, whose services are started if they do not run.
pub(crate) async fn connect(banger: &Banger) -> Connection {
    if banger.services().is_none() {
        banger.ok(["vm", "list"]);
    }
    to(&banger.bus()).await
}

pub(crate) async fn to(address: &str) -> Connection {
    zbus::connection::Builder::address(address).build().await.unwrap()
}

/// Waits until a job has ended well.
pub(crate) async fn done(bus: &Connection, service: &'static str, job: OwnedObjectPath) -> Dict {
    let job = JobProxy::builder(bus).destination(service).path(job).cache_properties(CacheProperties::No);
    outcome(job.build().await.unwrap().wait().await.unwrap()).unwrap()
}

/// A command that needs nothing but the agent.
pub(crate) fn command(argv: &[&str], stdin: Stdin) -> Exec {
    let argv = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
    Exec { argv, env: Vec::new(), cwd: None, tty: None, stdin, wait: Wait::Agent }
}

/// Runs `true` in a machine, from the call to its end.
pub(crate) async fn run_true(bus: &Connection, vm: &str) {
    let sessions = sessions::ManagerProxy::new(bus).await.unwrap();
    let exec = sessions::exec_to_dict(&command(&["true"], Stdin::Null));
    let stream: OwnedFd = sessions.exec(vm, exec, Dict::new()).await.unwrap().into();
    let mut stream = stream_of(stream);
    write_frame(&mut stream, &ExecInput::StdinEof).await.unwrap();
    ends_well(stream).await;
}

/// Reads what a command says, to an end that must be a good one.
pub(crate) async fn ends_well(stream: UnixStream) {
    let mut frames = FrameReader::new(stream);
    loop {
        let output = frames.expect::<ExecOutput>().await.unwrap();
        if output.is_end() {
            assert_eq!(output, ExecOutput::Exited(0));
            return;
        }
    }
}

pub(crate) fn stream_of(fd: OwnedFd) -> UnixStream {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

/// A machine that the services have made and not started: for the bench to start by itself.
pub(crate) struct Parts {
    vm: VmProxy<'static>,
    id: String,
    bus: Connection,
    pub(crate) lease: network::Lease,
}

impl Parts {
    /// Fresh disks, a claim on the image, a place in the network.
    pub(crate) async fn make(bus: &Connection, image: &str) -> Self {
        let (vm, id) = create(bus, image, false).await;
        let network = network::ManagerProxy::new(bus).await.unwrap();
        let lease = network::Lease::from_dict(network.reserve(&id, Dict::new()).await.unwrap()).unwrap();
        Parts { vm, id, bus: bus.clone(), lease }
    }

    /// Kernel, initramfs, image, system disk, work disk, TAP.
    pub(crate) async fn open(&self) -> [OwnedFd; 6] {
        let images = images::ManagerProxy::new(&self.bus).await.unwrap();
        let (kernel, initramfs, image, _) = images.open(&self.id, Dict::new()).await.unwrap();
        let storage = storage::ManagerProxy::new(&self.bus).await.unwrap();
        let (system, work) = storage.open(&self.id, Dict::new()).await.unwrap();
        let network = network::ManagerProxy::new(&self.bus).await.unwrap();
        let (tap, _) = network.open_tap(&self.id, Dict::new()).await.unwrap();
        [kernel, initramfs, image, system, work, tap].map(OwnedFd::from)
    }

    /// Gives everything back.
    pub(crate) async fn release(self) {
        done(&self.bus, vms::NAME, self.vm.delete(Dict::new()).await.unwrap()).await;
    }
}

/// Makes a machine without starting it, and waits for that; the machine and its id.
pub(crate) async fn create(bus: &Connection, image: &str, ephemeral: bool) -> (VmProxy<'static>, String) {
    let vms = vms::ManagerProxy::new(bus).await.unwrap();
    let spec = Spec { image: Some(image.parse().unwrap()), ephemeral, network: true, nat: true, ..Spec::default() };
    let (path, job) = vms.create(spec.to_dict(), Dict::new()).await.unwrap();
    let made = done(bus, vms::NAME, job).await;
    let id = String::try_from(made["id"].try_clone().unwrap()).unwrap();
    let vm = VmProxy::builder(bus).path(path).cache_properties(CacheProperties::No).build().await.unwrap();
    (vm, id)
}
