//! The first bytes of a connection, behind whatever an older one left.

use banger_schemas::guest::hello::{AgentHello, HostHello, LEN, Scanner};
use bolero::check;

use crate::wild::Wild;

fn host_samples() -> Vec<Vec<u8>> {
    let hello = HostHello::new(1, 1).to_bytes();
    vec![hello.to_vec(), hello[..13].to_vec(), [hello, hello].concat()]
}

fn agent_samples() -> Vec<Vec<u8>> {
    let hello = HostHello::new(1, 1).answer().to_bytes();
    vec![hello.to_vec(), hello[..13].to_vec(), [hello, hello].concat()]
}

/// Where in a stream hellos end, and which.
fn found<T>(wire: &[u8], mut scan: impl FnMut(u8) -> Option<T>) -> Vec<(usize, T)> {
    wire.iter().enumerate().filter_map(|(i, byte)| Some((i, scan(*byte)?))).collect()
}

#[test]
fn a_hosts_hello_is_found_behind_anything() {
    let samples = host_samples();
    check!().with_type::<(Vec<Wild>, u64, u32)>().for_each(|(wilds, nonce, generation)| {
        let hello = HostHello::new(*nonce, *generation);
        let mut wire: Vec<u8> = wilds.iter().flat_map(|wild| wild.bytes(&samples)).collect();
        wire.extend(hello.to_bytes());
        let mut scanner = Scanner::for_agent();
        let found = found(&wire, |byte| scanner.host_hello(byte));
        assert_eq!(found.last(), Some(&(wire.len() - 1, hello)));
        for (end, hello) in found {
            assert_eq!(hello.to_bytes(), wire[end + 1 - LEN..=end], "a hello is what its bytes say");
            let answer = hello.answer();
            let spoken = answer.version == 0 || (hello.oldest..=hello.newest).contains(&answer.version);
            assert!(spoken && answer.nonce == hello.nonce, "{answer:?} to {hello:?}");
        }
    });
}

#[test]
fn the_agents_answer_is_found_behind_anything() {
    let samples = agent_samples();
    check!().with_type::<(Vec<Wild>, u64, u16)>().for_each(|(wilds, nonce, version)| {
        let hello = AgentHello { nonce: *nonce, version: *version, newest: *version };
        let mut wire: Vec<u8> = wilds.iter().flat_map(|wild| wild.bytes(&samples)).collect();
        wire.extend(hello.to_bytes());
        let mut scanner = Scanner::for_host();
        let found = found(&wire, |byte| scanner.agent_hello(byte, *nonce));
        assert_eq!(found.last(), Some(&(wire.len() - 1, hello)));
        assert!(found.iter().all(|(_, answer)| answer.nonce == *nonce), "answers to older hellos are skipped");
    });
}
