//! One client's connection: hello, then a request at a time, each with its answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use banger_schemas::io::{Packet, PacketSocket};
use banger_schemas::keeper::{Event, ExitCause, Hello, Phase, Request};
use tokio::time::timeout;

use crate::life::Order;
use crate::vm::Vm;

/// For a client to say hello, or to take an answer out of its socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves a client until it leaves, or breaks the protocol.
pub(crate) async fn attend(socket: PacketSocket, vm: Rc<Vm>) {
    // The client's end of the socket tells it all that could be said here.
    let _ = converse(&socket, &vm).await;
}

async fn converse(socket: &PacketSocket, vm: &Rc<Vm>) -> io::Result<()> {
    let hello = timeout(PATIENCE, socket.expect::<Hello>()).await??;
    send(socket, &Hello::default(), None).await?;
    if hello.message.common(Hello::default()).is_none() {
        return Ok(());
    }
    loop {
        match socket.receive::<Request>().await {
            Ok(Some(packet)) => {
                let watches = packet.message == Request::Watch;
                // Whatever was asked for is worth a moment even if the VM ends meanwhile.
                let _worth = vm.tasks.token();
                let (event, fd) = match watches {
                    true => return follow(socket, vm).await,
                    false => serve(packet, vm).await,
                };
                send(socket, &event, fd).await?;
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                let event =
                    Event::Failed(format!("that is no request of protocol {}: {error}", Hello::default().newest));
                send(socket, &event, None).await?;
                return Err(error);
            }
        }
    }
}

async fn serve(Packet { message, fds }: Packet<Request>, vm: &Rc<Vm>) -> (Event, Option<OwnedFd>) {
    let done = match message {
        Request::Launch(launch) => vm.launch(*launch, None, fds).await.map(|()| None),
        Request::LaunchWith(launch, memory) => vm.launch(*launch, Some(memory), fds).await.map(|()| None),
        Request::Freeze => match vm.freeze().await {
            Ok(origin) => {
                vm.told();
                return (Event::Frozen(origin), None);
            }
            Err(reason) => Err(reason),
        },
        Request::Open => vm.open().await.map(Some),
        Request::Console { follow } => vm.read_console(follow).map(Some),
        Request::Quit { grace_ms } => {
            vm.end(Order::Quit(Duration::from_millis(grace_ms.into()))).await;
            vm.told();
            Ok(None)
        }
        Request::Kill => {
            vm.end(Order::Kill(ExitCause::Asked, None)).await;
            vm.told();
            Ok(None)
        }
        Request::Watch => Err("a connection that watches serves nothing else".into()),
    };
    match done {
        Ok(Some(fd)) => (Event::Stream, Some(fd)),
        Ok(None) => (Event::Done, None),
        Err(reason) => (Event::Failed(reason), None),
    }
}

/// Sends the status now and whenever it changes, until the client leaves or the VM has ended.
async fn follow(socket: &PacketSocket, vm: &Rc<Vm>) -> io::Result<()> {
    let mut status = vm.watch();
    loop {
        let now = status.borrow_and_update().clone();
        let over = matches!(now.phase, Phase::Exited(_));
        send(socket, &Event::Status(now), None).await?;
        if over {
            vm.told();
            return Ok(());
        }
        tokio::select! {
            changed = status.changed() => changed.map_err(|_| io::ErrorKind::BrokenPipe)?,
            // A client that watches has nothing more to say: it leaves.
            _ = socket.receive::<Request>() => return Ok(()),
        }
    }
}

async fn send<T: bincode::Encode>(socket: &PacketSocket, message: &T, fd: Option<OwnedFd>) -> io::Result<()> {
    let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
    timeout(PATIENCE, socket.send(message, &fds)).await?
}
