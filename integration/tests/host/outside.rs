//! What is outside of a host: a network namespace behind its uplink, with a name server and a web server.

use std::time::Duration;

use banger_integration::host::{Host, Running, User, Who};

/// What the name server says of every name.
pub(crate) const ADDRESS: &str = "192.0.2.80";

const LINKS: &str = "
    ip netns add outside
    ip link add eth0 type veth peer name eth0 netns outside
    ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.1
    ip -n outside addr add 192.0.2.1/24 dev eth0 && ip -n outside addr add 198.51.100.1/32 dev lo
    ip -n outside link set lo up && ip -n outside link set eth0 up";

const NAMES: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('192.0.2.1', 53))
print('answers', flush=True)
while True:
    question, who = s.recvfrom(4096)
    end = 12
    while question[end]: end += question[end] + 1
    kind = struct.unpack('!H', question[end + 1:end + 3])[0]
    data = {1: bytes([192, 0, 2, 80]), 2: b'\x01a\xc0\x0c'}.get(kind)
    answer = b'\xc0\x0c' + struct.pack('!HHIH', kind, 1, 60, len(data)) + data if data else b''
    head = question[:2] + b'\x81\x80' + struct.pack('!HHHH', 1, 1 if data else 0, 0, 0)
    s.sendto(head + question[12:end + 5] + answer, who)
"#;

const PAGES: &str = r#"
import socket
s = socket.create_server(('198.51.100.1', 80))
print('answers', flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b'outside\n')
    c.close()
"#;

/// What a guest says that got a page there.
const DIAL: &str = r#"use IO::Socket::INET;
my $s = IO::Socket::INET->new(PeerAddr => "198.51.100.1:80", Timeout => 1) or exit 3; print <$s>"#;

/// Whether a machine of Alice's gets there.
pub(crate) fn is_reached_from(host: &Host, machine: &str) -> bool {
    let dialled = host.run_as(Who::NoSession(User::Alice), ["banger", "vm", "exec", machine, "--", "perl", "-e", DIAL]);
    assert!(dialled.code == 3 || dialled.stdout == "outside\n", "{dialled:?}");
    dialled.code == 0
}

/// As long as this lives, somebody is there.
pub(crate) struct Outside<'h> {
    _servers: [Running<'h>; 2],
}

impl<'h> Outside<'h> {
    pub(crate) fn of(host: &'h Host) -> Self {
        host.sh(LINKS);
        let servers = [NAMES, PAGES].map(|program| {
            let words = ["ip", "netns", "exec", "outside", "python3", "-c", program];
            let mut server = host.errand(Who::Root, words).limit(Duration::from_secs(600)).start();
            server.says("answers");
            server
        });
        Outside { _servers: servers }
    }
}
