//! What only QEMU can do to its keeper: its monitor's answers, and a channel that is one stream for the VM's life.

use std::time::{Duration, Instant};

use banger_schemas::keeper::{Event, Request};

use crate::channel::ends_for_the_agents_sake;
use crate::host::Keeper;

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
