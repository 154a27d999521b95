//! Whether programs of this host ask systemd-resolved at all: by its stub, which resolv.conf(5) names, or by its module
//! of nsswitch.conf(5).

use std::fs;

const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// What keeps them from it.
pub(super) fn unasked() -> Option<String> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let asked = by_stub(&read("/etc/resolv.conf")) || by_module(&read("/etc/nsswitch.conf"));
    (!asked).then(|| {
        "programs of this host do not ask systemd-resolved, so they find no machine by its name: \
         'sudo ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf'"
            .to_owned()
    })
}

fn by_stub(resolv: &str) -> bool {
    let servers = resolv.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.into_iter().any(|server| STUBS.contains(&server.trim()))
}

fn by_module(nsswitch: &str) -> bool {
    let hosts = nsswitch.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    hosts.is_some_and(|hosts| {
        hosts.split('#').next().unwrap_or_default().split_whitespace().any(|word| word == "resolve")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_or_the_module_is_enough() {
        assert!(by_stub("# x\nnameserver 127.0.0.53\noptions edns0\n") && by_stub("nameserver\t127.0.0.54 \n"));
        assert!(!by_stub("nameserver 192.0.2.1\n# nameserver 127.0.0.53\n") && !by_stub(""));
        assert!(by_module("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"));
        assert!(!by_module("hosts: files dns # resolve\nnetworks: resolve\n") && !by_module(""));
    }
}
