//! The VM as its keeper's clients see it: a status, and what may be asked of it when.
//!
//! How the VMM lives and ends is `life`'s; how requests travel is `connection`'s.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use banger_schemas::keeper::{Exit, ExitCause, Launch, Memory, Origin, Phase, Status};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::backend::{self, Files};
use crate::channel::{self, Channel};
use crate::console::Console;
use crate::life::{self, Order};
use crate::origin;
use crate::tsc::Tsc;

/// Readers of the console at once.
const MAX_READERS: usize = 32;
/// After the end: for whoever has to hear of it, and for bytes on their way to clients.
const LINGER: Duration = Duration::from_secs(1);

/// The one VM of this process.
#[derive(Debug)]
pub(crate) struct Vm {
    status: watch::Sender<Status>,
    pub(crate) console: Rc<Console>,
    pub(crate) channel: Channel,
    orders: mpsc::Sender<Order>,
    inbox: RefCell<Option<mpsc::Receiver<Order>>>,
    /// A launch is being tried, or one succeeded.
    launched: Cell<bool>,
    readers: Rc<()>,
    /// What deserves a moment to finish after the end.
    pub(crate) tasks: TaskTracker,
    told: Notify,
    tsc: Tsc,
    /// What a guest that can be frozen has of this host.
    origin: RefCell<Option<Origin>>,
}

impl Vm {
    pub(crate) fn new() -> Rc<Self> {
        let (orders, inbox) = mpsc::channel(8);
        Rc::new(Vm {
            status: watch::Sender::new(Status { generation: 0, phase: Phase::Idle, vmm_pid: None }),
            console: Rc::new(Console::new()),
            channel: Channel::new(),
            orders,
            inbox: RefCell::new(Some(inbox)),
            launched: Cell::new(false),
            readers: Rc::new(()),
            tasks: TaskTracker::new(),
            told: Notify::new(),
            tsc: Tsc::start(),
            origin: RefCell::default(),
        })
    }

    /// Starts the VMM. Once: a launch that failed may be tried again, with fresh descriptors.
    ///
    /// `memory`: what came with it, if something did.
    pub(crate) async fn launch(
        self: &Rc<Self>,
        launch: Launch,
        memory: Option<Memory>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        if self.launched.replace(true) {
            return Err("this keeper has had its launch: a VM needs a keeper of its own".into());
        }
        let result = self.try_launch(&launch, memory, fds).await;
        if let Err(reason) = &result {
            tracing::warn!(reason, "launch failed");
            self.launched.set(false);
        }
        result
    }

    async fn try_launch(
        self: &Rc<Self>,
        launch: &Launch,
        memory: Option<Memory>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let Sorted { files, lease, console } = sorted(launch, memory.as_ref(), fds)?;
        if memory.is_some() {
            let here = origin::here(launch.backend, self.tsc).await;
            if let Some(Memory::Frozen(then)) = &memory
                && let Some(why) = origin::changed(then, &here)
            {
                return Err(why);
            }
            self.origin.replace(Some(here));
        }
        let backend = backend::of(launch.backend, self.tsc);
        let machine = backend.launch(launch, files).await.map_err(|e| format!("cannot run {}: {e}", launch.vmm))?;
        let Some(orders) = self.inbox.borrow_mut().take() else { return Err("the keeper is ending".into()) };
        let pid = machine.child.id();
        tracing::info!(vmm = launch.vmm, pid, "launched");
        self.change(|status| {
            status.phase = Phase::Booting;
            status.vmm_pid = pid;
        });
        tokio::task::spawn_local(life::live(self.clone(), machine, lease, console, orders));
        Ok(())
    }

    /// Changes the status, unless the VM has ended: nothing comes after that.
    fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            if matches!(status.phase, Phase::Exited(_)) {
                return false;
            }
            change(status);
            status.generation += 1;
            true
        });
    }

    /// The guest's kernel has written something.
    pub(crate) fn heard(&self) {
        if self.status.borrow().phase == Phase::Booting {
            self.change(|status| status.phase = Phase::Kernel);
        }
    }

    /// The agent said hello, or is gone again.
    pub(crate) fn agent(&self, there: bool) {
        self.change(|status| status.phase = if there { Phase::Agent } else { Phase::Kernel });
    }

    /// The VMM is gone.
    pub(crate) fn exited(&self, exit: Exit) {
        tracing::info!(cause = ?exit.cause, message = ?exit.message, "the VM has ended");
        self.change(|status| {
            status.phase = Phase::Exited(exit);
            status.vmm_pid = None;
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Ends the VM and returns when its VMM is gone.
    pub(crate) async fn end(&self, order: Order) {
        if !self.launched.replace(true) {
            self.exited(Exit { cause: ExitCause::Asked, message: String::new() });
            return;
        }
        self.order(order).await;
        let mut status = self.watch();
        // An error would mean that this VM has been dropped.
        let _ = status.wait_for(|status| matches!(status.phase, Phase::Exited(_))).await;
    }

    /// Freezes the guest and ends its VMM.
    pub(crate) async fn freeze(&self) -> Result<Origin, String> {
        let origin = self.origin.borrow().clone().ok_or("this guest was not launched to be frozen")?;
        let (tell, told) = oneshot::channel();
        self.order(Order::Freeze(tell)).await;
        let frozen = told.await.unwrap_or_else(|_| Err("its VMM is gone".into()));
        self.end(Order::Kill(ExitCause::Asked, None)).await;
        frozen.map(|()| origin)
    }

    /// Passes an order on. A VMM that is gone takes none, which is as well.
    pub(crate) async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await;
    }

    /// The client's end of a stream to the agent.
    pub(crate) async fn open(&self) -> Result<OwnedFd, String> {
        self.channel.open(&self.tasks).await
    }

    /// The client's end of a stream of the console.
    pub(crate) fn read_console(&self, follow: bool) -> Result<OwnedFd, String> {
        let slot = self.readers.clone();
        if Rc::strong_count(&slot) > MAX_READERS + 1 {
            return Err(format!("{MAX_READERS} readers of the console are there already"));
        }
        let (ours, theirs) = channel::sockets().map_err(|error| format!("no socket for the console: {error}"))?;
        let console = self.console.clone();
        self.tasks.spawn_local(async move {
            // A reader that went away is nothing to report.
            let _ = console.copy_to(ours, follow).await;
            drop(slot);
        });
        Ok(theirs)
    }

    /// Waits until nobody has launched anything for so long.
    pub(crate) async fn unwanted(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience).await;
            if self.status.borrow().phase != Phase::Idle {
                std::future::pending::<()>().await;
            }
            if !self.launched.get() {
                return;
            }
        }
    }

    /// Somebody knows how the VM ended.
    pub(crate) fn told(&self) {
        self.told.notify_one();
    }

    /// Waits until the VM has ended and, for a moment, until somebody knows and streams are drained.
    pub(crate) async fn over(&self) {
        let mut status = self.watch();
        let _ = status.wait_for(|status| matches!(status.phase, Phase::Exited(_))).await;
        self.tasks.close();
        let heard = async {
            self.told.notified().await;
            self.tasks.wait().await;
        };
        // Who has not listened by now will see the connection end.
        let _ = tokio::time::timeout(LINGER, heard).await;
    }
}

/// What came with a launch.
struct Sorted {
    files: Files,
    /// A pidfd of the client.
    lease: Option<OwnedFd>,
    /// Where the console's last bytes go, and what the guest said before.
    console: Option<File>,
}

/// Gives each descriptor its part, in the order the protocol has them in.
fn sorted(launch: &Launch, memory: Option<&Memory>, fds: Vec<OwnedFd>) -> Result<Sorted, String> {
    let single = [launch.tap, launch.leased, launch.keeps_console].map(usize::from).iter().sum::<usize>();
    let expected = 5 + single + if memory.is_some() { 2 } else { 0 };
    let wrong = || format!("{} descriptors came with the launch, not {expected}", fds.len());
    if launch.tap != launch.mac.is_some() {
        return Err("a TAP and a MAC go together".into());
    }
    if launch.vcpus == 0 || launch.memory_mib == 0 || !launch.vmm.starts_with('/') {
        return Err("a VM needs processors, memory and the VMM's full path".into());
    }
    if fds.len() != expected {
        return Err(wrong());
    }
    let mut rest = fds.into_iter();
    let mut next = || rest.next().ok_or(io::ErrorKind::UnexpectedEof);
    let mut files = || -> Result<_, io::ErrorKind> {
        let mut files = Files {
            kernel: next()?,
            initramfs: next()?,
            image: next()?,
            system: next()?,
            work: next()?,
            tap: launch.tap.then(&mut next).transpose()?,
            memory: None,
        };
        let lease = launch.leased.then(&mut next).transpose()?;
        let console = launch.keeps_console.then(&mut next).transpose()?.map(File::from);
        if let Some(memory) = memory {
            let frozen = matches!(memory, Memory::Frozen(_));
            files.memory = Some(backend::Memory { ram: next()?, devices: next()?, frozen });
        }
        Ok(Sorted { files, lease, console })
    };
    files().map_err(|error| error.to_string())
}
