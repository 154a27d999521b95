//! What the stand-in VMMs have in common: the guest, which plays the part that its "kernel" says.
//!
//! A part is words: `print:TEXT` and `flood` for the console, `say:TEXT` for the VMM's own messages, `agent:HOW`, and
//! `exit:N` or `signal:N` for its end. Without an end it waits to be told. Of a real kernel it makes a guest whose
//! agent takes its identity and powers off when it is asked to.

use std::io::Read;

use banger_schemas::guest::hello::{AgentHello, LEN, Scanner};
use banger_schemas::guest::{Ready, Reply, Request};
use banger_schemas::io::{FrameReader, write_frame};
use futures_util::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

const MIB: usize = 1024 * 1024;

/// What a guest does, a word and how for each thing.
#[derive(Clone)]
pub(crate) struct Part(Vec<(String, String)>);

impl Part {
    pub(crate) fn of(kernel: &str) -> Part {
        let mut file = std::fs::File::open(kernel).unwrap();
        let mut start = [0; 4];
        let text = match file.read_exact(&mut start).is_ok() && &start == b"\x7fELF" {
            true => "print:booted agent:guest".to_owned(),
            false => std::fs::read_to_string(kernel).unwrap(),
        };
        let pair = |word: &str| {
            let (word, how) = word.split_once(':').unwrap_or((word, ""));
            (word.to_owned(), how.to_owned())
        };
        Part(text.split_whitespace().map(pair).collect())
    }

    pub(crate) fn how(&self, role: &str) -> String {
        self.0.iter().find(|(word, _)| word == role).map_or_else(String::new, |(_, how)| how.clone())
    }

    /// Plays it; what its agent notes goes to the console too.
    pub(crate) async fn play(
        self,
        mut console: impl AsyncWrite + Unpin,
        facts: String,
        mut noted: UnboundedReceiver<String>,
    ) {
        for (word, what) in self.0 {
            match word.as_str() {
                "facts" => console.write_all(facts.as_bytes()).await.unwrap(),
                "print" => console.write_all(format!("{what}\n").as_bytes()).await.unwrap(),
                "flood" => loop {
                    console.write_all(&[b'x'; 4096]).await.unwrap();
                },
                "say" => eprintln!("{}", what.replace('_', " ")),
                "sleep" => tokio::time::sleep(std::time::Duration::from_millis(what.parse().unwrap())).await,
                "exit" => std::process::exit(what.parse().unwrap()),
                "signal" => {
                    nix::sys::signal::raise(nix::sys::signal::Signal::try_from(what.parse::<i32>().unwrap()).unwrap())
                        .unwrap();
                }
                _ => {}
            }
            console.flush().await.unwrap();
        }
        while let Some(note) = noted.recv().await {
            console.write_all(format!("{note}\n").as_bytes()).await.unwrap();
            console.flush().await.unwrap();
        }
        std::future::pending::<()>().await;
    }
}

/// What a VMM must not have: other descriptors, an environment, the right to gain rights.
pub(crate) fn facts() -> String {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().filter(|fd| {
        // The one that reads this folder does not count.
        std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|target| !target.starts_with("/proc"))
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let no_new_privs = status.lines().find(|line| line.starts_with("NoNewPrivs")).unwrap().replace('\t', " ");
    format!("fds {}, env {}, {no_new_privs}\n", fds.count(), std::env::vars().count())
}

pub(crate) type Notes = tokio::sync::mpsc::UnboundedSender<String>;

/// Serves the host on one stream.
pub(crate) async fn play_agent(mut stream: UnixStream, how: String, notes: Notes) {
    match how.as_str() {
        "" | "silent" => std::future::pending().await,
        "garbage" => stream.write_all(&garbage(2 * MIB)).await.unwrap(),
        "endless" => loop {
            stream.write_all(&[0; 65536]).await.unwrap();
        },
        _ => {}
    }
    let Some((mut answer, generation)) = hello(&mut stream).await else { return };
    match how.as_str() {
        // A stale answer, and half of one, before the real one.
        "late" => {
            let stale = AgentHello { nonce: answer.nonce ^ 1, ..answer }.to_bytes();
            stream.write_all(&[&stale[..], &stale[..9]].concat()).await.unwrap();
        }
        "version0" => answer.version = 0,
        "once-cut" | "halts" if generation == 1 => {
            stream.write_all(&answer.to_bytes()).await.unwrap();
            return tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        "restarted" if generation == 1 => {
            // Says goodbye in order, then is there again.
            stream.write_all(&answer.to_bytes()).await.unwrap();
            stream.write_all(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let Some((again, _)) = hello(&mut stream).await else { return };
            answer = again;
        }
        _ => {}
    }
    stream.write_all(&answer.to_bytes()).await.unwrap();
    match how.as_str() {
        "length" => stream.write_all(&[0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255]).await.unwrap(),
        "nonsense" => stream.write_all(&garbage(MIB)).await.unwrap(),
        "cut" => return stream.write_all(&[0, 0, 0, 1, 0, 0, 0]).await.unwrap(),
        "uninvited" => {
            for id in (2u32..40_000).step_by(2) {
                let syn = [&[0, 1, 0, 1][..], &id.to_be_bytes(), &[0; 4]].concat();
                stream.write_all(&syn).await.unwrap();
            }
        }
        _ => return serve(stream, how, notes).await,
    }
    std::future::pending().await
}

/// None: the host went away.
async fn hello(stream: &mut UnixStream) -> Option<(AgentHello, u32)> {
    let mut scanner = Scanner::for_agent();
    loop {
        if let Some(hello) = scanner.host_hello(stream.read_u8().await.ok()?) {
            return Some((hello.answer(), hello.generation));
        }
    }
}

fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / LEN).flat_map(step).collect()
}

async fn serve(stream: UnixStream, how: String, notes: Notes) {
    let mut connection = yamux::Connection::new(stream.compat(), yamux::Config::default(), yamux::Mode::Server);
    let mut ignored = Vec::new();
    while let Some(Ok(stream)) = poll_fn(|context| connection.poll_next_inbound(context)).await {
        if how == "stuck" {
            ignored.push(stream);
        } else if how == "guest" {
            tokio::task::spawn_local(answer(stream));
        } else {
            tokio::task::spawn_local(operate(stream, notes.clone()));
        }
    }
}

/// A guest's answer to one request.
async fn answer(stream: yamux::Stream) {
    let (reading, mut writing) = tokio::io::split(stream.compat());
    let Ok(request) = FrameReader::new(reading).expect::<Request>().await else { return };
    let reply = match request {
        Request::Identify(_) => Reply::Ready(Ready { boot_id: "f".repeat(36), init: false, warnings: Vec::new() }),
        Request::Shutdown { .. } => Reply::Stopping,
        Request::Prepare => Reply::Prepared,
        Request::Exec(_) | Request::Status => Reply::Refused("this guest is played".into()),
    };
    // Whoever asked may have gone.
    drop(write_frame(&mut writing, &reply).await);
    drop(writing.shutdown().await);
    if reply == Reply::Stopping {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        std::process::exit(0);
    }
}

/// An operation is its first byte: echo, count what comes, or write for ever.
async fn operate(stream: yamux::Stream, notes: Notes) {
    let mut stream = stream.compat();
    let mut buffer = vec![0; 65536];
    match stream.read_u8().await.unwrap() {
        b'e' => {
            while let got @ 1.. = stream.read(&mut buffer).await.unwrap() {
                stream.write_all(&buffer[..got]).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        }
        b'c' => {
            let mut count = 0;
            while let got @ 1.. = stream.read(&mut buffer).await.unwrap() {
                count += got;
            }
            notes.send(format!("counted {count}")).unwrap();
            let _ = stream.write_all(count.to_string().as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        _ => {
            while stream.write_all(&buffer).await.is_ok() {}
            notes.send("writer ended".into()).unwrap();
        }
    }
}
