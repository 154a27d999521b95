//! The TAP goes to a Firecracker, which asks for it by name, as it was given to the keeper.

use std::os::fd::AsFd;

use banger_schemas::keeper::Event;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::net::UnixDatagram;

use crate::contract::contract;
use crate::host::{Watcher, launch, soon};
use crate::stage::Stage;

/// A TAP, as far as frames come out of its other end.
fn tap() -> (UnixDatagram, std::os::unix::net::UnixDatagram) {
    let (outside, tap) = std::os::unix::net::UnixDatagram::pair().unwrap();
    outside.set_nonblocking(true).unwrap();
    (UnixDatagram::from_std(outside).unwrap(), tap)
}

#[tokio::test]
async fn a_tap_that_is_asked_for_by_name_is_the_one_that_came_with_the_launch() {
    let (outside, tap) = tap();
    let kept = tap.try_clone().unwrap();
    let stage = Stage::with("");
    let client = stage.keeper.client().await;
    let watcher = Watcher::of(&stage.keeper).await;
    let launched = stage.launch_with(&client, "agent:honest", launch(), Some(tap.into())).await;
    assert_eq!(launched, Event::Done);
    watcher.agent().await;
    let mut frame = [0; 16];
    let length = soon(outside.recv(&mut frame)).await.unwrap();
    assert_eq!(&frame[..length], b"frame");
    // As Firecracker would have opened it.
    let flags = OFlag::from_bits_retain(fcntl(kept.as_fd(), FcntlArg::F_GETFL).unwrap());
    assert!(flags.contains(OFlag::O_NONBLOCK));
    let contract = contract();
    let requests = stage.requests();
    assert_eq!(
        requests.iter().map(|(request, _)| request).collect::<Vec<_>>(),
        contract.order.iter().collect::<Vec<_>>()
    );
    for (request, body) in requests {
        contract.check(&request, &body);
    }
}

#[tokio::test]
async fn a_vmm_that_dies_or_fails_before_it_asks_for_its_tap_is_told_as_any() {
    for (fate, said) in [("die", "exit status: 3"), ("refuse no such device", "was refused: no such device")] {
        let (_outside, tap) = tap();
        let stage = Stage::with(&format!("/network-interfaces/net {fate}"));
        let client = stage.keeper.client().await;
        let event = stage.launch_with(&client, "agent:honest", launch(), Some(tap.into())).await;
        let Event::Failed(why) = event else { panic!("{fate}: {event:?}") };
        assert!(why.contains(said), "{fate}: {why}");
        stage.assert_nothing_is_left();
    }
}
