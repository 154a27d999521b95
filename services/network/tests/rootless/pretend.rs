//! Pretend guests: a network namespace behind a port of the bridge, in which this test program runs again as client or
//! server; and bare frames on a TAP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use banger_network::host::rootless::process::Identity;
use banger_network::host::{Host, Places, Rootless};
use banger_network::render::Guest;
use banger_schemas::network::mac_text;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::network::{Network, inside};

const ROLE: &str = "BANGER_TEST_ROLE";
const LIMIT: Duration = Duration::from_secs(3);

/// A guest without a VM.
pub(crate) struct Pretend {
    /// Its namespace lives as long as this.
    process: Child,
}

impl Pretend {
    pub(crate) fn new(network: &Network, guest: &Guest) -> Self {
        let holder = network.process("holder.json").pid.to_string();
        let mut process = Command::new("nsenter")
            .args(["-t", &holder, "-U", "-n", "--preserve-credentials", "unshare", "-n"])
            .args(["sh", "-c", "echo made; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (pid, port, mac) = (process.id(), guest.vm.tap_name(), mac_text(guest.mac));
        network.run(&format!(
            "ip link add {port} type veth peer name eth0 address {mac} netns {pid} && \
             ip link set {port} master br-banger && ip link set {port} type bridge_slave isolated on && \
             ip link set {port} up"
        ));
        let made = Pretend { process };
        made.run(&format!(
            "ip link set lo up && ip addr add {}/24 dev eth0 && ip link set eth0 up && ip route add default via 172.16.0.1",
            guest.address
        ));
        made
    }

    pub(crate) fn run(&self, command: &str) {
        let output = inside(self.process.id().cast_signed(), command);
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// What a connection to there says first; `Err` when there is none.
    pub(crate) fn dial(&self, to: impl ToString) -> Result<String, String> {
        let child = play(self.process.id(), &format!("dial {}", to.to_string()));
        first_word(child).1
    }

    /// Answers every connection to this port with a text.
    pub(crate) fn serve(&self, port: u16, text: &str) -> Server {
        let (child, said) = first_word(play(self.process.id(), &format!("serve {port} {text}")));
        assert_eq!(said, Ok("listening".to_owned()));
        Server(child)
    }
}

impl Drop for Pretend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From the namespace itself, past all rules for guests.
pub(crate) fn dial_beside(holder: &Identity, to: &str) -> Result<String, String> {
    first_word(play(holder.pid.cast_unsigned(), &format!("dial {to}"))).1
}

/// What the probe says behind a command that ends in `$SELF`.
pub(crate) fn probe_inside(pid: i32, command: &str) -> String {
    first_word(play_by(pid.cast_unsigned(), "probe", command)).1.unwrap()
}

fn play(pid: u32, role: &str) -> Child {
    play_by(pid, role, "$SELF")
}

fn play_by(pid: u32, role: &str, command: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let arguments = "plays_its_role --exact --ignored --nocapture --test-threads=1";
    Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-U", "-n", "--preserve-credentials", "sh", "-c", &format!("exec {command}")])
        .env("SELF", format!("{} {arguments}", program.display()))
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn first_word(mut child: Child) -> (Child, Result<String, String>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.find_map(|line| {
        let line = line.split_once("=> ").map(|(_, said)| said.to_owned())?;
        Some(line.strip_prefix("ok ").map(str::to_owned).ok_or(line))
    });
    if said.as_ref().is_none_or(|said| said.as_deref() != Ok("listening")) {
        child.wait().unwrap();
    }
    (child, said.expect("the role said nothing"))
}

/// The other side of [`play`].
pub(crate) fn play_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.split(' ').collect::<Vec<_>>().as_slice() {
        ["dial", to] => match read_from(to.parse().unwrap()) {
            Ok(text) => println!("=> ok {text}"),
            Err(error) => println!("=> {error}"),
        },
        ["serve", port, text] => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse().unwrap())).unwrap();
            println!("=> ok listening");
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(text.as_bytes());
            }
        }
        ["probe"] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            println!("=> ok {:?}", runtime.block_on(rootless().probe()).unwrap_err());
        }
        other => panic!("no such role: {other:?}"),
    }
}

/// A host that is only probed.
fn rootless() -> Rootless {
    let nowhere = PathBuf::from("/nonexistent");
    let helper = PathBuf::from(env!("CARGO_BIN_EXE_banger-netns"));
    Rootless::new(Places { helper, runtime: nowhere.clone(), state: nowhere })
}

/// Connects and reads to the end.
pub(crate) fn read_from(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Frames come behind a `virtio_net_hdr` of ten bytes.
const HEADER: usize = 10;

/// Asks on a TAP who has an address.
pub(crate) fn ask_who_has(tap: &OwnedFd, mac: [u8; 6], sender: Ipv4Addr, wanted: Ipv4Addr) {
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6]);
    frame.extend(mac);
    // EtherType ARP; Ethernet, IPv4, six and four bytes, a request.
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(wanted.octets());
    File::from(tap.try_clone().unwrap()).write_all(&frame).unwrap();
}

/// Whether an ARP packet from this address comes on the TAP soon. Others (neighbour discovery) are passed over.
pub(crate) fn hears_arp_from(tap: &OwnedFd, sender: Ipv4Addr) -> bool {
    let mut file = File::from(tap.try_clone().unwrap());
    let mut frame = [0; 2048];
    for _ in 0..50 {
        let mut fds = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(500u16)).unwrap() == 0 {
            return false;
        }
        let length = file.read(&mut frame).unwrap();
        let frame = &frame[HEADER..length];
        if frame[12..14] == [8, 6] && frame[28..32] == sender.octets() {
            return true;
        }
    }
    false
}
