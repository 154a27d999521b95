//! The console, read by nobody, by many, and too slowly.

use std::time::Duration;

use banger_schemas::keeper::{Event, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{Keeper, soon};

const RING: usize = 256 * 1024;

#[tokio::test]
async fn a_vmm_gets_its_descriptors_and_nothing_else() {
    let (_keeper, client) = Keeper::playing("facts").await;
    let mut text = String::new();
    while !text.ends_with('\n') {
        text.clear();
        soon(client.console(false).await.read_to_string(&mut text)).await.unwrap();
    }
    assert_eq!(text, format!("fds {}, env 0, NoNewPrivs: 1\n", crate::INHERITED));
}

#[tokio::test]
async fn a_follower_gets_what_was_and_what_comes() {
    let (_keeper, client) = Keeper::playing("print:one sleep:500 print:two sleep:100 exit:0").await;
    let mut text = String::new();
    soon(client.console(true).await.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "one\ntwo\n");
}

#[tokio::test]
async fn a_reader_that_does_not_follow_gets_what_is_there() {
    let (_keeper, client) = Keeper::playing("print:one").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut text = String::new();
    soon(client.console(false).await.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "one\n");
}

#[tokio::test]
async fn an_endless_console_costs_no_memory_and_blocks_nobody() {
    let (keeper, client) = Keeper::playing("flood").await;
    let _never_read = client.console(true).await;
    let mut followed = client.console(true).await;
    let before = {
        tokio::time::sleep(Duration::from_millis(300)).await;
        keeper.memory()
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut seen = 0;
    while seen < 8 * RING {
        seen += soon(followed.read(&mut buffer)).await.unwrap();
    }
    let mut ring = Vec::new();
    soon(client.console(false).await.read_to_end(&mut ring)).await.unwrap();
    assert!((1..=2 * RING).contains(&ring.len()), "{}", ring.len());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(keeper.memory() < before + 2048, "{before} KiB became {}", keeper.memory());
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
}

#[tokio::test]
async fn a_reader_that_left_a_quiet_console_frees_its_place() {
    let (_keeper, client) = Keeper::playing("print:one").await;
    for _ in 0..100 {
        drop(client.console(true).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // One that only says it will write nothing stays.
    let mut reader = client.console(true).await;
    reader.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut buffer = [0; 4];
    soon(reader.read_exact(&mut buffer)).await.unwrap();
    let more = tokio::time::timeout(Duration::from_millis(200), reader.read(&mut buffer)).await;
    assert!(more.is_err(), "{more:?}");
}
