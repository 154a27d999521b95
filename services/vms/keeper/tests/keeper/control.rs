//! The control socket against clients that know no manners.

use std::time::Duration;

use banger_schemas::io::PacketSocket;
use banger_schemas::keeper::{Event, Hello, Phase, Request};

use crate::host::{Keeper, Watcher, soon};

#[tokio::test]
async fn garbage_harms_nobody_else() {
    let (keeper, client) = Keeper::playing("agent:honest").await;
    let rude = keeper.socket();
    rude.send(&vec![0xffu8; 5000], &[]).await.unwrap();
    assert!(soon(rude.receive::<Hello>()).await.unwrap().is_none(), "the connection is closed");
    let rude = keeper.client().await;
    rude.socket.send(&vec![0xffu8; 300], &[]).await.unwrap();
    assert!(matches!(soon(rude.socket.expect::<Event>()).await.unwrap().message, Event::Failed(_)));
    assert!(soon(rude.socket.receive::<Event>()).await.unwrap().is_none());
    Watcher::of(&keeper).await.agent().await;
    assert!(client.open().await.is_ok());
}

#[tokio::test]
async fn a_client_of_another_age_hears_which_versions_there_are() {
    let keeper = Keeper::start();
    let socket = keeper.socket();
    socket.send(&Hello { oldest: 900, newest: 901 }, &[]).await.unwrap();
    assert_eq!(soon(socket.expect::<Hello>()).await.unwrap().message, Hello::default());
    assert!(soon(socket.receive::<Event>()).await.unwrap().is_none());
}

#[tokio::test]
async fn the_connections_are_counted() {
    let keeper = Keeper::start();
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(keeper.client().await);
    }
    let one_more = keeper.socket();
    let _ = one_more.send(&Hello::default(), &[]).await;
    assert!(!matches!(soon(one_more.receive::<Hello>()).await, Ok(Some(_))));
    drop(clients.pop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    keeper.client().await;
}

#[tokio::test]
async fn a_silent_client_is_not_kept() {
    let keeper = Keeper::start();
    let silent: PacketSocket = keeper.socket();
    assert!(soon(silent.receive::<Hello>()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_watcher_that_never_reads_does_not_hold_the_others_up() {
    let (keeper, client) = Keeper::playing("print:hello").await;
    let _never_read = Watcher::of(&keeper).await;
    let watcher = Watcher::of(&keeper).await;
    watcher.until(|phase| *phase == Phase::Kernel).await;
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
    watcher.exit().await;
}
