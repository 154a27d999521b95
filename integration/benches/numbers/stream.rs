//! Bytes through a command's stdin and stdout, against the same bytes through a bare virtio-serial port of the same
//! machine: no multiplexer, no frames, no agent.
//!
//! The machine has a keeper of the bench's own, whose VMM is given a second port. The stream that a keeper opens is
//! what Sessions1.Exec hands out, so services need not be there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_integration::Banger;
use banger_schemas::codec::MAX_DATA;
use banger_schemas::guest::{Address, ExecInput, ExecOutput, Identity, Reply, Request, Stdin};
use banger_schemas::io::{FrameReader, write_frame};
use banger_schemas::network::Lease;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::boot::{IMAGE, VMM, launch};
use crate::client::{self, Parts, command};
use crate::keeper::{Connection, Keeper};
use crate::stats::Samples;
use crate::table::{Goal, Table};

const BYTES: usize = 64 << 20;
const BLOCKS: usize = BYTES / MAX_DATA;

pub(crate) fn measure(banger: &Banger, rounds: usize, table: &mut Table) {
    let samples = crate::block_on(all(banger, rounds.div_ceil(2)));
    let [out, raw_out, pipe_out, into, raw_in, pipe_in] = samples.map(|samples| rate(samples.median()));
    table.section("64 MiB through a machine's command");
    let speed = |rate: f64| format!("{rate:.0} MiB/s");
    for (what, ours, raw, pipe) in [("stdout", out, raw_out, pipe_out), ("stdin", into, raw_in, pipe_in)] {
        let goal = Some(Goal::AtLeast(0.9));
        table.ratio(what, &speed(ours), &format!("bare port: {}", speed(raw)), ours / raw, goal);
        let against = format!("bare port behind a pipe: {}", speed(pipe));
        table.ratio(&format!("{what}, its pipe in the guest not counted"), &speed(ours), &against, ours / pipe, None);
    }
}

fn rate(took: Duration) -> f64 {
    (BYTES >> 20) as f64 / took.as_secs_f64()
}

async fn all(banger: &Banger, rounds: usize) -> [Samples; 6] {
    let bus = client::connect(banger).await;
    let parts = Parts::make(&bus, IMAGE).await;
    let [kernel, initramfs, image, system, work, _tap] = parts.open().await;
    let keeper = Keeper::start(banger);
    let (vmm, port) = with_second_port(banger.home());
    let channel = keeper.launch(launch(&vmm, None), &[kernel, initramfs, image, system, work]).await;
    identify(&channel, None).await;
    let mut port = UnixStream::connect(&port).await.unwrap();
    // The guest's name of the second port.
    let found = "for p in /sys/class/virtio-ports/*; do grep -qx raw $p/name && ln -s /dev/${p##*/} /dev/raw; done; test -e /dev/raw";
    run(&channel, found, Stdin::Null).await.end().await;

    let from_port = format!("dd if=/dev/raw bs=64k count={BLOCKS} iflag=fullblock");
    let zeros = format!("dd if=/dev/zero bs=64k count={BLOCKS}");
    let scripts = [
        (zeros.clone(), Where::Stdout),
        (format!("{zeros} of=/dev/raw"), Where::PortOut),
        (format!("{zeros} | dd of=/dev/raw bs=64k"), Where::PortOut),
        (format!("dd of=/dev/null bs=64k count={BLOCKS} iflag=fullblock"), Where::Stdin),
        (format!("{from_port} of=/dev/null"), Where::PortIn),
        (format!("{from_port} | dd of=/dev/null bs=64k"), Where::PortIn),
    ];
    let mut samples: [Samples; 6] = Default::default();
    for round in 0..=rounds {
        for ((script, way), samples) in scripts.iter().zip(&mut samples) {
            let took = transfer(&channel, &mut port, script, *way).await;
            // The first of each warms the emulator's code cache.
            if round > 0 {
                samples.add(took);
            }
        }
    }
    drop(keeper);
    parts.release().await;
    samples
}

/// Which way the bytes go.
#[derive(Clone, Copy)]
enum Where {
    Stdout,
    PortOut,
    Stdin,
    PortIn,
}

async fn transfer(channel: &Connection, port: &mut UnixStream, script: &str, way: Where) -> Duration {
    let stdin = if matches!(way, Where::Stdin) { Stdin::Stream } else { Stdin::Null };
    let mut running = run(channel, script, stdin).await;
    let block = vec![0; MAX_DATA];
    let begun = Instant::now();
    match way {
        Where::Stdout => running.stdout_to_end().await,
        Where::PortOut => {
            let mut buffer = block;
            let mut left = BYTES;
            while left > 0 {
                left -= port.read(&mut buffer).await.unwrap();
            }
            running.end().await;
        }
        Where::Stdin => {
            for _ in 0..BLOCKS {
                write_frame(&mut running.input, &ExecInput::Stdin(block.clone())).await.unwrap();
            }
            running.end().await;
        }
        Where::PortIn => {
            for _ in 0..BLOCKS {
                port.write_all(&block).await.unwrap();
            }
            running.end().await;
        }
    }
    begun.elapsed()
}

/// A command that has started.
struct Running {
    output: FrameReader<OwnedReadHalf>,
    input: OwnedWriteHalf,
}

async fn run(channel: &Connection, script: &str, stdin: Stdin) -> Running {
    let (read, mut write) = channel.stream().await.into_split();
    let exec = command(&["sh", "-c", &format!("{{ {script}; }} 2>/dev/null")], stdin);
    write_frame(&mut write, &Request::Exec(Box::new(exec))).await.unwrap();
    let mut output = FrameReader::new(read);
    assert!(matches!(output.expect().await.unwrap(), ExecOutput::Started { .. }));
    Running { output, input: write }
}

impl Running {
    /// Its end, which must be a good one and without output.
    async fn end(mut self) {
        assert_eq!(self.output.expect::<ExecOutput>().await.unwrap(), ExecOutput::Exited(0));
    }

    async fn stdout_to_end(&mut self) {
        let mut seen = 0;
        loop {
            match self.output.expect().await.unwrap() {
                ExecOutput::Stdout(data) => seen += data.len(),
                ExecOutput::Exited(0) => break assert_eq!(seen, BYTES),
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) async fn identify(channel: &Connection, lease: Option<&Lease>) {
    let identity = Identity {
        vm_id: "benchbench".into(),
        hostname: "bench".into(),
        machine_id: [1; 16],
        clock_ns: u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap(),
        seed: [7; 32],
        address: lease.map(Address::from),
        ssh_host_key: None,
        authorized_keys: Vec::new(),
        start_init: false,
    };
    let mut stream = channel.stream().await;
    write_frame(&mut stream, &Request::Identify(Box::new(identity))).await.unwrap();
    let reply = FrameReader::new(stream).expect::<Reply>().await.unwrap();
    assert!(matches!(reply, Reply::Ready(_)), "{reply:?}");
}

/// A VMM that adds one port to whatever it is told, and the port's socket on the host.
fn with_second_port(folder: &Path) -> (String, PathBuf) {
    let (program, socket) = (folder.join("vmm-with-port"), folder.join("raw.sock"));
    let script = format!(
        "#!/bin/sh\nexec {VMM} \"$@\" -chardev socket,id=raw,path={},server=on,wait=off \
         -device virtio-serial-device,id=second,max_ports=2 -device virtserialport,bus=second.0,chardev=raw,name=raw\n",
        socket.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program.to_str().unwrap().to_owned(), socket)
}
