//! Pretend guests: a network namespace behind a port of the bridge, in which `examples/pretend_guest.rs` runs as client or
//! server; and bare frames on a TAP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use banger_network::render::Guest;
use banger_schemas::network::mac_text;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The program that plays the guest's part.
#[allow(dead_code, reason = "its main is the program's")]
#[path = "../../examples/pretend_guest.rs"]
mod role;

pub(crate) use role::read_from;

/// Where commands run: how nsenter(1) gets there.
pub(crate) trait Place {
    /// A process that is there.
    fn pid(&self) -> u32;
    /// The namespaces to enter.
    fn namespaces(&self) -> &'static [&'static str];

    /// Runs a command there, which must succeed.
    fn run(&self, command: &str) -> String {
        let output = enter(self.pid(), self.namespaces(), command).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn enter(pid: u32, namespaces: &[&str], command: &str) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &pid.to_string()]).args(namespaces);
    enter.args(["sh", "-c"]).arg(format!("PATH=$PATH:/usr/sbin:/sbin; {command}"));
    enter
}

/// A guest without a VM.
pub(crate) struct Pretend {
    /// Its namespace lives as long as this.
    process: Child,
    namespaces: &'static [&'static str],
}

impl Place for Pretend {
    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn namespaces(&self) -> &'static [&'static str] {
        self.namespaces
    }
}

impl Pretend {
    pub(crate) fn new(place: &impl Place, guest: &Guest) -> Self {
        let namespaces = place.namespaces();
        let mut process = Command::new("nsenter")
            .args(["-t", &place.pid().to_string()])
            .args(namespaces)
            .args(["unshare", "-n", "sh", "-c", "echo made; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (pid, port, mac) = (process.id(), guest.vm.tap_name(), mac_text(guest.mac));
        place.run(&format!(
            "ip link add {port} type veth peer name eth0 address {mac} netns {pid} && \
             ip link set {port} master br-banger && ip link set {port} type bridge_slave isolated on && \
             ip link set {port} up"
        ));
        let made = Pretend { process, namespaces };
        made.run(&format!(
            "ip link set lo up && ip addr add {}/24 dev eth0 && ip link set eth0 up && ip route add default via 172.16.0.1",
            guest.address
        ));
        made
    }

    /// What a connection to there says first; `Err` when there is none.
    pub(crate) fn dial(&self, to: impl ToString) -> Result<String, String> {
        dial_from(self, to)
    }

    /// Answers every connection to this port with a text.
    pub(crate) fn serve(&self, port: u16, text: &str) -> Server {
        serve_in(self, port, text)
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

/// What a connection from a place says first; `Err` when there is none.
pub(crate) fn dial_from(place: &impl Place, to: impl ToString) -> Result<String, String> {
    first_word(play(place, &format!("dial {}", to.to_string()), "exec $SELF")).1
}

/// Answers, in a place, every connection to this port with a text.
pub(crate) fn serve_in(place: &impl Place, port: u16, text: &str) -> Server {
    let (child, said) = first_word(play(place, &format!("serve {port} {text}"), "exec $SELF"));
    assert_eq!(said, Ok("listening".to_owned()));
    Server(child)
}

/// What the probe says behind a command that ends in `$SELF`.
pub(crate) fn probe_inside(place: &impl Place, command: &str) -> String {
    let role = format!("probe {}", env!("CARGO_BIN_EXE_banger-netns"));
    first_word(play(place, &role, &format!("exec {command}"))).1.unwrap()
}

fn play(place: &impl Place, role: &str, command: &str) -> Child {
    let program = Path::new(env!("CARGO_BIN_EXE_banger-netns")).with_file_name("examples").join("pretend_guest");
    enter(place.pid(), place.namespaces(), command)
        .env("SELF", format!("{} {role}", program.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn first_word(mut child: Child) -> (Child, Result<String, String>) {
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next().expect("the role said nothing").unwrap();
    let said = line.strip_prefix("ok ").map(str::to_owned).ok_or(line);
    if said.as_deref() != Ok("listening") {
        child.wait().unwrap();
    }
    (child, said)
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
