//! Whom this host asks about names, for guests to be led on to. Reads what the resolver of the host reads.

use std::fs;
use std::net::Ipv4Addr;

/// resolv.conf(5), and the same without systemd-resolved's own stub, which only the host reaches.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The first name server that is not on the loopback interface, or none.
pub fn of_this_host() -> Option<Ipv4Addr> {
    FILES.iter().find_map(|file| first(&fs::read_to_string(file).ok()?))
}

fn first(file: &str) -> Option<Ipv4Addr> {
    let servers = file.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<Ipv4Addr>().ok());
    servers.into_iter().find(|server| !server.is_loopback() && !server.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_that_a_guest_could_reach_is_taken() {
        let file = "# nameserver 1.1.1.1\nsearch a\nnameserver 127.0.0.53\nnameserver fd00::1\nnameserver\t192.0.2.1 \nnameserver 192.0.2.2\n";
        assert_eq!(first(file), Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(first("nameserver 127.0.0.1\nnameserver 0.0.0.0\noptions edns0\n"), None);
    }
}
