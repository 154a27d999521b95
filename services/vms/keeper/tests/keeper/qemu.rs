//! What only QEMU can do to its keeper: its monitor's answers, and a channel that is one stream for the VM's life.

use std::time::{Duration, Instant};

use std::os::fd::{AsFd, OwnedFd};

use banger_schemas::keeper::{Event, ExitCause, Memory, Origin, Request};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::channel::ends_for_the_agents_sake;
use crate::host::{Client, Keeper, Watcher, files, launch};

#[tokio::test]
async fn a_deaf_vmm_is_killed_when_its_grace_is_over() {
    let (_keeper, client) = Keeper::playing("qmp:deaf").await;
    let begin = Instant::now();
    assert_eq!(client.ask(Request::Quit { grace_ms: 300 }).await.0, Event::Done);
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_vmm_that_answers_nonsense_is_killed_at_once() {
    let (_keeper, client) = Keeper::playing("qmp:flood").await;
    let begin = Instant::now();
    assert_eq!(client.ask(Request::Quit { grace_ms: 60_000 }).await.0, Event::Done);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_channel_closed_in_a_frame_ends_the_vm() {
    assert!(ends_for_the_agents_sake("cut").await.contains("closed"));
}

/// Launches a VMM that plays this part, with a memory of its own.
async fn launch_with(client: &Client, part: &str, memory: Memory) -> Event {
    let mut files = files(part);
    files.extend([c"ram", c"devices"].map(|name| memfd_create(name, MFdFlags::MFD_CLOEXEC).unwrap()));
    let fds: Vec<_> = files.iter().map(OwnedFd::as_fd).collect();
    client.ask_with(Request::LaunchWith(Box::new(launch()), memory), &fds).await.0
}

/// Freezes a guest of this keeper's.
async fn frozen() -> Origin {
    let mut keeper = Keeper::start();
    let client = keeper.client().await;
    assert_eq!(launch_with(&client, "agent:honest", Memory::Fresh).await, Event::Done);
    let watcher = Watcher::of(&keeper).await;
    watcher.agent().await;
    let origin = match client.ask(Request::Freeze).await.0 {
        Event::Frozen(origin) => origin,
        other => panic!("{other:?}"),
    };
    assert_eq!(watcher.exit().await.cause, ExitCause::Asked, "the VMM is gone");
    assert!(keeper.ended().await.success());
    origin
}

#[tokio::test]
async fn a_frozen_guest_goes_on_under_another_keeper() {
    let origin = frozen().await;
    let keeper = Keeper::start();
    let client = keeper.client().await;
    assert_eq!(launch_with(&client, "agent:honest", Memory::Frozen(origin)).await, Event::Done);
    Watcher::of(&keeper).await.agent().await;
    assert!(client.open().await.is_ok());
    let refused = client.ask(Request::Freeze).await.0;
    assert!(matches!(refused, Event::Failed(_)), "it was not launched to be frozen again: {refused:?}");
}

#[tokio::test]
async fn a_guest_of_another_host_or_another_clock_does_not_go_on_and_a_boot_still_can() {
    let origin = frozen().await;
    let khz = origin.tsc_khz.map(|khz| khz + khz / 100);
    for other in [Origin { tsc_khz: khz, ..origin.clone() }, Origin { processor: Some("x".into()), ..origin }] {
        let keeper = Keeper::start();
        let client = keeper.client().await;
        let refused = launch_with(&client, "agent:honest", Memory::Frozen(other)).await;
        assert!(matches!(&refused, Event::Failed(why) if why.contains("frozen")), "{refused:?}");
        assert_eq!(client.launch("agent:honest").await, Event::Done);
        Watcher::of(&keeper).await.agent().await;
    }
}

#[tokio::test]
async fn a_vmm_that_does_not_take_a_guest_is_gone_and_a_boot_still_can() {
    let origin = frozen().await;
    for part in ["qmp:stuck", "qmp:torn", "qmp:deaf", "qmp:flood"] {
        let keeper = Keeper::start();
        let client = keeper.client().await;
        let refused = launch_with(&client, part, Memory::Frozen(origin.clone())).await;
        assert!(matches!(refused, Event::Failed(_)), "{part}: {refused:?}");
        assert_eq!(client.launch("agent:honest").await, Event::Done, "{part}");
        Watcher::of(&keeper).await.agent().await;
    }
}

#[tokio::test]
async fn a_guest_that_cannot_be_frozen_is_ended() {
    for part in ["agent:honest qmp:stuck", "agent:honest qmp:torn"] {
        let keeper = Keeper::start();
        let client = keeper.client().await;
        assert_eq!(launch_with(&client, part, Memory::Fresh).await, Event::Done);
        let watcher = Watcher::of(&keeper).await;
        watcher.agent().await;
        assert!(matches!(client.ask(Request::Freeze).await.0, Event::Failed(_)), "{part}");
        watcher.exit().await;
    }
    let (keeper, client) = Keeper::playing("agent:honest").await;
    Watcher::of(&keeper).await.agent().await;
    assert!(matches!(client.ask(Request::Freeze).await.0, Event::Failed(_)));
    assert!(client.open().await.is_ok(), "it was not to be frozen, and goes on");
}
