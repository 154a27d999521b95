//! An agent that means harm, put in the real one's place by tests: it serves the protocol up to the point where it is
//! asked to break it. A command's first word says how, and before there are commands, the VM's name or its size.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test's program: its end ends the VM"
)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use banger_schemas::codec::{Deframer, MAX_DATA, encode_frame};
use banger_schemas::guest::hello::{AgentHello, HostHello, Scanner};
use banger_schemas::guest::{ExecOutput, Identity, Ready, Reply, Request};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

/// yamux: version, type, flags (2), stream (4), length (4).
const HEADER: usize = 12;
const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const SYN: u8 = 1;
const ACK: u8 = 2;
const FIN: u8 = 4;
const NOISE: usize = 64 * 1024;

fn main() -> io::Result<()> {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    let mut modules: Vec<PathBuf> = fs::read_dir("/modules")?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    modules.sort();
    for module in modules {
        // What this VM needs is among those that load.
        let _ = finit_module(File::open(module)?, c"", ModuleInitFlags::empty());
    }
    let port = port();
    let port = OpenOptions::new().read(true).write(true).open(port)?;
    Agent { input: BufReader::new(port.try_clone()?), port, streams: HashMap::new() }.run()
}

fn port() -> PathBuf {
    loop {
        let ports = fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten();
        let named = |path: &PathBuf| fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == "agent");
        if let Some(name) = ports.map(|port| port.path()).find(named).as_deref().and_then(|path| path.file_name()) {
            return PathBuf::from("/dev").join(name);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn noise() -> Vec<u8> {
    let mut noise = vec![0xff; NOISE];
    File::open("/dev/urandom").and_then(|mut from| from.read_exact(&mut noise[1..])).expect("noise");
    noise
}

struct Agent {
    input: BufReader<File>,
    port: File,
    /// What came on each stream; none once its request is served.
    streams: HashMap<u32, Option<Deframer>>,
}

impl Agent {
    fn run(mut self) -> io::Result<()> {
        let noise = noise();
        // One processor: the host is never answered.
        while std::thread::available_parallelism()?.get() == 1 {
            self.port.write_all(&noise)?;
        }
        let hello = self.greeted()?;
        // The hello has to be found behind all this, and is neither the answer to another nor half of one.
        self.port.write_all(&noise)?;
        self.port.write_all(&AgentHello { nonce: !hello.nonce, ..hello.answer() }.to_bytes())?;
        self.port.write_all(&hello.answer().to_bytes()[..15])?;
        self.port.write_all(&hello.answer().to_bytes())?;
        loop {
            let mut header = [0; HEADER];
            self.input.read_exact(&mut header)?;
            let [_, kind, _, _, s0, s1, s2, s3, l0, l1, l2, l3] = header;
            if kind != DATA {
                continue;
            }
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            let mut body = vec![0; u32::from_be_bytes([l0, l1, l2, l3]) as usize];
            self.input.read_exact(&mut body)?;
            let Some(deframer) = self.streams.entry(stream).or_insert_with(|| Some(Deframer::default())) else {
                continue;
            };
            deframer.push(&body);
            if let Some(request) = deframer.take::<Request>().map_err(io::Error::other)? {
                self.streams.insert(stream, None);
                self.serve(stream, request)?;
            }
        }
    }

    fn greeted(&mut self) -> io::Result<HostHello> {
        let mut scanner = Scanner::for_agent();
        loop {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            if let Some(hello) = scanner.host_hello(byte[0]) {
                return Ok(hello);
            }
        }
    }

    fn serve(&mut self, stream: u32, request: Request) -> io::Result<()> {
        match request {
            Request::Identify(identity) => self.identify(stream, &identity),
            Request::Exec(exec) => {
                let word = exec.argv.first().map(|word| String::from_utf8_lossy(word).into_owned());
                self.data(stream, ACK, &encode_frame(&ExecOutput::Started { pid: 1 })?)?;
                self.harm(stream, word.as_deref().unwrap_or_default())
            }
            Request::Status | Request::Shutdown { .. } | Request::Prepare => Ok(()),
        }
    }

    fn identify(&mut self, stream: u32, identity: &Identity) -> io::Result<()> {
        let answer = match identity.hostname.as_str() {
            "liar" => u32::MAX.to_le_bytes().to_vec(),
            _ => {
                // As many of the smallest things as a message holds.
                let warnings = vec![String::new(); MAX_DATA];
                encode_frame(&Reply::Ready(Ready { boot_id: "hostile".into(), init: false, warnings }))?
            }
        };
        self.data(stream, ACK, &answer)?;
        self.data(stream, FIN, &[])
    }

    fn harm(&mut self, stream: u32, how: &str) -> io::Result<()> {
        let output = encode_frame(&ExecOutput::Stdout(vec![b'x'; 1000]))?;
        match how {
            "nothing" => self.data(stream, FIN, &encode_frame(&ExecOutput::Exited(0))?),
            "noise" => self.port.write_all(&noise()),
            "long frame" => self.header(DATA, 0, stream, u32::MAX),
            "long message" => self.data(stream, 0, &u32::MAX.to_le_bytes()),
            "long string" => self.data(stream, 0, b"\x06\0\0\0\x01\xfc\xff\xff\xff\xff"),
            "half a message" => self.data(stream, FIN, &output[..output.len() / 2]),
            "half a frame" | "gone" => {
                self.header(DATA, 0, stream, 1000)?;
                self.port.write_all(&output[..500])?;
                match how {
                    // The kernel's panic, since this is PID 1.
                    "gone" => std::process::exit(1),
                    _ => self.silent(),
                }
            }
            // What follows never reads again what the host says.
            "output" => loop {
                self.data(stream, 0, &output)?;
            },
            "pings" => loop {
                self.header(PING, SYN, 0, 7)?;
            },
            "streams" => {
                for own in (2..).step_by(2) {
                    self.header(WINDOW, SYN, own, 0)?;
                }
                Ok(())
            }
            _ => panic!("no such harm: {how}"),
        }
    }

    fn silent(&self) -> ! {
        loop {
            std::thread::park();
        }
    }

    fn header(&mut self, kind: u8, flags: u8, stream: u32, length: u32) -> io::Result<()> {
        let mut header = [0, kind, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&stream.to_be_bytes());
        header[8..].copy_from_slice(&length.to_be_bytes());
        self.port.write_all(&header)
    }

    fn data(&mut self, stream: u32, flags: u8, bytes: &[u8]) -> io::Result<()> {
        self.header(DATA, flags, stream, u32::try_from(bytes.len()).expect("a short frame"))?;
        self.port.write_all(bytes)
    }
}
