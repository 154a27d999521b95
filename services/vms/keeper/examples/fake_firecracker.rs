//! A stand-in Firecracker for the keeper's tests: serves its API, writes down what it is asked for, and has its guest
//! play the part that its "kernel" says.
//!
//! Beside the program, as it is called, may lie a `script`: the path of a request, or `start`, and what happens then
//! (`fate`). There it also leaves `requests`: a method, a path and a body a line.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "whatever fails here fails a test")]

mod guest;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use guest::{Notes, Part, facts, play_agent};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    // Run by accident, or listed by a test runner: nothing to play.
    let Some(socket) = args.iter().skip_while(|arg| *arg != "--api-sock").nth(1) else { return };
    let beside = Path::new(&args[0]).parent().unwrap().to_owned();
    let facts = facts();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, Vmm { beside, facts, kernel: None, vsock: None }.serve(socket));
}

struct Vmm {
    beside: PathBuf,
    facts: String,
    kernel: Option<String>,
    vsock: Option<UnixListener>,
}

impl Vmm {
    async fn serve(mut self, socket: &str) {
        match self.fate("start").as_deref() {
            Some("die") => std::process::exit(3),
            Some("deaf") => std::future::pending().await,
            _ => {}
        }
        let listener = UnixListener::bind(socket).unwrap();
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        while let Some((line, body)) = request(&mut stream).await {
            let path = line.split(' ').nth(1).unwrap().to_owned();
            self.note(&line, &body);
            if let Some(fate) = self.fate(&path) {
                suffer(&fate, &mut stream).await;
            }
            self.obey(&path, &body);
            stream
                .write_all(b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n")
                .await
                .unwrap();
            if path == "/actions" {
                return self.run().await;
            }
        }
    }

    /// What the script says of this moment.
    fn fate(&self, of: &str) -> Option<String> {
        let script = std::fs::read_to_string(self.beside.join("script")).ok()?;
        script.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(' ').map(str::to_owned))
    }

    fn note(&self, line: &str, body: &str) {
        let requests = self.beside.join("requests");
        let Ok(mut file) = std::fs::File::options().append(true).create(true).open(requests) else { return };
        let words: Vec<_> = line.split(' ').take(2).collect();
        writeln!(file, "{} {body}", words.join(" ")).unwrap();
    }

    fn obey(&mut self, path: &str, body: &str) {
        let body: Value = body.parse().unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        match path {
            "/boot-source" => self.kernel = Some(text("kernel_image_path")),
            "/network-interfaces/net" => attach(&text("host_dev_name")),
            "/vsock" => self.vsock = Some(UnixListener::bind(text("uds_path")).unwrap()),
            _ => {}
        }
    }

    async fn run(self) {
        // The answer to the start is read before anything happens.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let part = Part::of(&self.kernel.unwrap());
        let (notes, noted) = tokio::sync::mpsc::unbounded_channel();
        tokio::task::spawn_local(accept(self.vsock.unwrap(), part.how("agent"), notes));
        part.play(tokio::io::stdout(), self.facts, noted).await;
    }
}

nix::ioctl_readwrite_bad!(set_interface, nix::request_code_write!(b'T', 202, size_of::<i32>()), nix::libc::ifreq);

/// Asks for a TAP by its name as Firecracker does, and has the guest send a frame. What it asks with is no TAP device:
/// as it is in a unit.
#[allow(unsafe_code, reason = "what Firecracker does")]
fn attach(name: &str) {
    let mut tap = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    // SAFETY: a struct of numbers and bytes, for which zeroes are values.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the descriptor is open, and the request is a whole struct.
    if let Err(errno) = unsafe { set_interface(tap.as_raw_fd(), &raw mut request) } {
        eprintln!("Open tap device failed: {errno}");
        std::process::exit(1);
    }
    tap.write_all(b"frame").unwrap();
}

/// Takes connections for the guest's agent. A silent one has never heard of its port; one that halts answers once.
async fn accept(listener: UnixListener, how: String, notes: Notes) {
    let mut owed = Vec::new();
    for number in 0.. {
        let mut stream = listener.accept().await.unwrap().0;
        let mut asked = [0; "CONNECT 1024\n".len()];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"CONNECT 1024\n");
        if how.is_empty() || how == "silent" {
            continue;
        }
        if how == "halts" && number > 0 {
            owed.push(stream);
            continue;
        }
        stream.write_all(b"OK 1073741824\n").await.unwrap();
        tokio::task::spawn_local(play_agent(stream, how.clone(), notes.clone()));
    }
}

/// The request's first line and its body; none when the client has gone.
async fn request(stream: &mut BufReader<UnixStream>) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = number.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head.first()?.clone(), String::from_utf8(body).unwrap()))
}

/// What a VMM may do instead of answering.
async fn suffer(fate: &str, stream: &mut BufReader<UnixStream>) {
    let refusal = |fault: &str| {
        let body = serde_json::json!({ "fault_message": fault }).to_string();
        format!("HTTP/1.1 400 \r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let (word, rest) = fate.split_once(' ').unwrap_or((fate, ""));
    match word {
        "refuse" => stream.write_all(refusal(rest).as_bytes()).await.unwrap(),
        "wordless" => stream.write_all(b"HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n").await.unwrap(),
        "die" => std::process::exit(3),
        "crash" => nix::sys::signal::raise(nix::sys::signal::Signal::SIGSYS).unwrap(),
        "say" => {
            eprintln!("{rest}");
            std::process::exit(1);
        }
        "hang" => {}
        "close" => stream.shutdown().await.unwrap(),
        "half" => {
            stream.write_all(b"HTTP/1.1 204 \r\nServer: Fire").await.unwrap();
            stream.shutdown().await.unwrap();
        }
        "half-body" => {
            stream.write_all(&refusal("a long story").as_bytes()[..90]).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        "nonsense" => stream.write_all(b"+OK firecracker ready\r\n").await.unwrap(),
        "endless-head" => while stream.write_all(b"X-Header: and one more\r\n").await.is_ok() {},
        "endless-body" => {
            stream.write_all(b"HTTP/1.1 400 \r\nContent-Length: 1000000000000\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
        _ => panic!("{fate:?} is no fate"),
    }
    // The VMM itself goes on: it is the keeper that has to end it.
    std::future::pending().await
}
