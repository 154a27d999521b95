//! A private bus, the name server on it, a Vms1 that says what the test wants, and a resolver.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails by panicking")]

pub(crate) mod resolver;
pub(crate) mod vms;

use std::thread::JoinHandle;

use banger_bus::Address;
use banger_schemas::dns::ManagerProxy;
use tokio::sync::oneshot;

use resolver::Resolver;
use vms::Vms;

/// A thread that is told to end, and waited for, when this is dropped.
struct Thread {
    stop: Option<oneshot::Sender<()>>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn spawn(body: impl FnOnce(oneshot::Receiver<()>) + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        Thread { stop: Some(stop), handle: Some(std::thread::spawn(move || body(stopped))) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(handle) = self.handle.take() {
            let ended = handle.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the harness panicked");
        }
    }
}

/// The bus and the name server. Fields are dropped in this order.
pub(crate) struct Host {
    service: Option<Thread>,
    _bus: Thread,
    address: String,
    _folder: tempfile::TempDir,
}

impl Host {
    /// A bus with nobody on it.
    pub(crate) async fn quiet() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", folder.path().join("bus").display());
        let (ready, listening) = oneshot::channel();
        let at = address.clone();
        let bus = Thread::spawn(move |stop| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut bus = busd::bus::Bus::for_address(Some(&at)).await.unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    ended = bus.run() => ended.unwrap(),
                    _ = stop => (),
                }
            });
        });
        listening.await.unwrap();
        Host { service: None, _bus: bus, address, _folder: folder }
    }

    /// A bus with the name server on it.
    pub(crate) async fn serving() -> Self {
        let mut host = Host::quiet().await;
        host.serve().await;
        host
    }

    /// Starts the name server.
    pub(crate) async fn serve(&mut self) {
        let (ready, started) = oneshot::channel();
        let address = Address::At(self.address.clone());
        self.service = Some(Thread::spawn(move |stop| {
            let ended = banger_bus::service::run(
                &address,
                banger_dns::PLACE,
                banger_dns::start,
                |outcome| ready.send(outcome.clone()).unwrap(),
                async { drop(stop.await) },
            );
            ended.unwrap();
        }));
        started.await.unwrap().unwrap();
    }

    /// Ends the name server.
    pub(crate) fn stop_serving(&mut self) {
        self.service = None;
    }

    pub(crate) async fn connect(&self) -> zbus::Connection {
        Address::At(self.address.clone()).connect().await.unwrap()
    }

    /// A Vms1 that has taken its name.
    pub(crate) async fn vms(&self, machines: &[vms::Machine]) -> Vms {
        Vms::start(self.connect().await, machines).await
    }

    pub(crate) async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.connect().await).await.unwrap()
    }

    /// Who asks the name server.
    pub(crate) async fn resolver(&self) -> Resolver {
        Resolver::of(self.manager().await.listen().await.unwrap().parse().unwrap())
    }
}
