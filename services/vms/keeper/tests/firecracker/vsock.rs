//! The way to the agent through Firecracker's vsock, and the end of a guest that Firecracker does not notice.

use banger_schemas::keeper::{Event, ExitCause, Phase, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{Keeper, Watcher, soon};
use crate::stage::Stage;

#[tokio::test]
async fn nothing_of_a_running_vm_has_a_name() {
    let stage = Stage::with("");
    let client = stage.keeper.client().await;
    assert_eq!(stage.launch(&client, "print:hello agent:honest", false).await, Event::Done);
    stage.assert_nothing_has_a_name();
    Watcher::of(&stage.keeper).await.agent().await;
    assert!(client.open().await.is_ok());
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
    stage.assert_nothing_is_left();
}

#[tokio::test]
async fn an_agent_whose_connection_broke_off_is_connected_to_again() {
    let (keeper, client) = Keeper::playing("agent:once-cut").await;
    let watcher = Watcher::of(&keeper).await;
    watcher.agent().await;
    watcher.until(|phase| *phase == Phase::Kernel).await;
    watcher.agent().await;
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"e!").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'!');
}

#[tokio::test]
async fn a_guest_that_has_halted_is_a_guest_that_has_powered_off() {
    let (mut keeper, _client) = Keeper::playing("agent:halts").await;
    let watcher = Watcher::of(&keeper).await;
    watcher.agent().await;
    assert_eq!(watcher.exit().await.cause, ExitCause::Status(0));
    keeper.ended().await;
}
