//! A stand-in QEMU for the keeper's tests: takes its command line and plays the part that its "kernel" says, `qmp:HOW`
//! among its words.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "whatever fails here fails a test")]

mod guest;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use guest::{Part, facts, play_agent};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

fn main() {
    // Run by accident, or listed by a test runner: nothing to play.
    let args: Vec<String> = std::env::args().collect();
    let Some(kernel) = value(&args, "-kernel") else { return };
    let part = Part::of(kernel);
    let facts = facts();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, play(args, part, facts));
}

fn value<'a>(args: &'a [String], option: &str) -> Option<&'a str> {
    args.iter().skip_while(|arg| *arg != option).nth(1).map(String::as_str)
}

fn chardev(args: &[String], id: &str) -> UnixStream {
    let prefix = format!("socket,id={id},fd=");
    let number: RawFd = args.iter().find_map(|arg| arg.strip_prefix(&prefix)).unwrap().parse().unwrap();
    let stream = StdUnixStream::from(inherited(number));
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

#[allow(unsafe_code, reason = "a descriptor that the keeper passed by number")]
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: each of the numbers on the command line is open and taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

async fn play(args: Vec<String>, part: Part, facts: String) {
    let console = chardev(&args, "console");
    let agent = chardev(&args, "agent");
    let qmp = chardev(&args, "qmp");
    let (notes, noted) = tokio::sync::mpsc::unbounded_channel();
    tokio::task::spawn_local(answer_qmp(qmp, part.how("qmp")));
    tokio::task::spawn_local(play_agent(agent, part.how("agent"), notes));
    part.play(console, facts, noted).await;
}

async fn answer_qmp(stream: UnixStream, how: String) {
    let mut stream = BufReader::new(stream);
    match how.as_str() {
        "deaf" => std::future::pending().await,
        "flood" => loop {
            stream.write_all(&[b'{'; 4096]).await.unwrap();
        },
        _ => {}
    }
    stream.write_all(b"{\"QMP\": {}}\r\n").await.unwrap();
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap() > 0 {
        let migrates = line.contains("\"migrate\"") || line.contains("\"migrate-incoming\"");
        if migrates && how == "torn" {
            std::process::exit(1);
        }
        stream.write_all(b"{\"event\": \"NOISE\"}\r\n{\"return\": {}}\r\n").await.unwrap();
        if migrates {
            let status = if how == "stuck" { "failed" } else { "completed" };
            let event = format!("{{\"event\": \"MIGRATION\", \"data\": {{\"status\": \"{status}\"}}}}\r\n");
            stream.write_all(event.as_bytes()).await.unwrap();
        }
        if line.contains("\"quit\"") {
            std::process::exit(0);
        }
        line.clear();
    }
}
