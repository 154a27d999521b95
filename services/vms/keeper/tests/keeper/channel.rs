//! The guest channel, with agents that are honest and agents that are not.

use std::time::Duration;

use banger_schemas::guest::MAX_STREAMS;
use banger_schemas::keeper::{Event, ExitCause, Phase, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{Client, Keeper, Watcher, soon};

async fn with_agent(how: &str) -> (Keeper, Client, Watcher) {
    let (keeper, client) = Keeper::playing(&format!("agent:{how}")).await;
    let watcher = Watcher::of(&keeper).await;
    watcher.agent().await;
    (keeper, client, watcher)
}

#[tokio::test]
async fn before_the_agent_has_answered_nothing_opens() {
    let (_keeper, client) = Keeper::playing("agent:silent").await;
    let refused = client.open().await.unwrap_err();
    assert_eq!(refused, Event::Failed("the guest has not answered yet".into()));
}

#[tokio::test]
async fn a_stream_carries_both_ways_and_ends_both_ways() {
    let (_keeper, client, _watcher) = with_agent("late").await;
    let (mut reader, mut writer) = client.open().await.unwrap().into_split();
    let sent = (0..5_000_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[2]).collect::<Vec<u8>>();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(b"e").await.unwrap();
        writer.write_all(&sent).await.unwrap();
        // Half a close: the answer still comes.
        writer.shutdown().await.unwrap();
        writer
    });
    let mut received = Vec::new();
    soon(reader.read_to_end(&mut received)).await.unwrap();
    assert!(received == expected);
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn what_was_written_before_a_close_arrives() {
    let (_keeper, client, _watcher) = with_agent("honest").await;
    let mut console = client.console(true).await;
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"c").await.unwrap();
    stream.write_all(&vec![1; 1_234_567]).await.unwrap();
    drop(stream);
    let mut text = vec![0; "counted 1234567\n".len()];
    soon(console.read_exact(&mut text)).await.unwrap();
    assert_eq!(text, b"counted 1234567\n");
}

#[tokio::test]
async fn an_agent_that_writes_for_a_client_that_is_gone_hears_of_it() {
    let (_keeper, client, _watcher) = with_agent("honest").await;
    let mut console = client.console(true).await;
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"w").await.unwrap();
    let mut some = vec![0; 100_000];
    soon(stream.read_exact(&mut some)).await.unwrap();
    drop(stream);
    let mut text = vec![0; "writer ended\n".len()];
    soon(console.read_exact(&mut text)).await.unwrap();
    assert_eq!(text, b"writer ended\n");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let (keeper, client, _watcher) = with_agent("honest").await;
    let mut unread = client.open().await.unwrap();
    unread.write_all(b"w").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = keeper.memory();
    for _ in 0..50 {
        let mut stream = client.open().await.unwrap();
        stream.write_all(b"eping").await.unwrap();
        let mut answer = [0; 4];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"ping");
    }
    assert!(keeper.memory() < before + 4096, "{before} KiB became {}", keeper.memory());
}

#[tokio::test]
async fn streams_are_counted() {
    let (_keeper, client, _watcher) = with_agent("honest").await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(client.open().await.unwrap());
    }
    assert!(matches!(client.open().await, Err(Event::Failed(why)) if why.contains("256 streams")));
    drop(streams);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"e!").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'!');
}

#[tokio::test]
async fn an_agent_that_accepts_and_never_reads_blocks_only_its_streams() {
    let (_keeper, client, _watcher) = with_agent("stuck").await;
    let mut stream = client.open().await.unwrap();
    let filling = async { while stream.write_all(&[0; 65536]).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_millis(500), filling).await.is_err());
    assert!(client.open().await.is_ok());
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
}

#[tokio::test]
async fn streams_end_with_the_vm_and_their_last_bytes_arrive() {
    let (_keeper, client, _watcher) = with_agent("honest").await;
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"elast words").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "last words");
}

#[tokio::test]
async fn an_agent_that_left_in_order_is_greeted_again() {
    let (_keeper, client, watcher) = with_agent("restarted").await;
    // It may be back already: then there is nothing more to see, and the stream says it.
    let _ = tokio::time::timeout(Duration::from_millis(500), watcher.until(|phase| *phase == Phase::Kernel)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"e!").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'!');
}

#[tokio::test]
async fn an_endless_guest_costs_no_memory() {
    let (keeper, client) = Keeper::playing("agent:endless").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = keeper.memory();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(keeper.memory() < before + 1024, "{before} KiB became {}", keeper.memory());
    assert!(matches!(client.open().await, Err(Event::Failed(_))));
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
}

#[tokio::test]
async fn a_hello_is_found_behind_garbage() {
    let (_keeper, client, _watcher) = with_agent("garbage").await;
    assert!(client.open().await.is_ok());
}

#[tokio::test]
async fn streams_that_the_guest_opens_come_to_nothing() {
    let (keeper, client, _watcher) = with_agent("uninvited").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(keeper.memory() < 32 * 1024, "{} KiB", keeper.memory());
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
}

pub(crate) async fn ends_for_the_agents_sake(how: &str) -> String {
    let (keeper, _client) = Keeper::playing(&format!("sleep:200 agent:{how}")).await;
    let exit = Watcher::of(&keeper).await.exit().await;
    assert_eq!(exit.cause, ExitCause::Agent, "{exit:?}");
    exit.message
}

#[tokio::test]
async fn a_length_of_four_gigabytes_ends_the_vm() {
    assert!(ends_for_the_agents_sake("length").await.contains("too large"));
}

#[tokio::test]
async fn nonsense_after_the_hello_ends_the_vm() {
    assert!(ends_for_the_agents_sake("nonsense").await.contains("broke the protocol"));
}

#[tokio::test]
async fn an_agent_without_a_common_version_ends_the_vm() {
    assert!(ends_for_the_agents_sake("version0").await.contains("version 1"));
}
