//! The first bytes on a transport: found again in whatever an aborted connection left behind.
//!
//! A transport that is one long-lived byte stream (virtio-serial) may still hold bytes of a connection that ended
//! in the middle. So each side reads byte by byte until it sees the other's magic; the agent's answer repeats the
//! nonce of the hello it answers, and an answer to an older hello is skipped.

/// Versions of the guest protocol this build speaks, oldest first.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;

/// Bytes of a hello, either way.
pub const LEN: usize = 24;
const HOST_MAGIC: [u8; 8] = *b"\x00bangerH";
const AGENT_MAGIC: [u8; 8] = *b"\x00bangerA";

/// What the host says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostHello {
    /// Random; the answer repeats it.
    pub nonce: u64,
    pub oldest: u16,
    pub newest: u16,
    /// Counts the connections of one VM's life, so that the agent can drop what older ones left.
    pub generation: u32,
}

/// What the agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentHello {
    pub nonce: u64,
    /// The version that both will speak, or 0: no version in common.
    pub version: u16,
    /// The agent's newest version, for the message that says who is too old.
    pub newest: u16,
}

impl HostHello {
    pub fn new(nonce: u64, generation: u32) -> Self {
        HostHello { nonce, oldest: *VERSIONS.start(), newest: *VERSIONS.end(), generation }
    }

    pub fn to_bytes(self) -> [u8; LEN] {
        let mut b = [0; LEN];
        b[..8].copy_from_slice(&HOST_MAGIC);
        b[8..16].copy_from_slice(&self.nonce.to_le_bytes());
        b[16..18].copy_from_slice(&self.oldest.to_le_bytes());
        b[18..20].copy_from_slice(&self.newest.to_le_bytes());
        b[20..24].copy_from_slice(&self.generation.to_le_bytes());
        b
    }

    /// The agent's answer: the newest version that both speak.
    pub fn answer(self) -> AgentHello {
        let version = self.newest.min(*VERSIONS.end());
        let common = version >= self.oldest && version >= *VERSIONS.start();
        AgentHello { nonce: self.nonce, version: if common { version } else { 0 }, newest: *VERSIONS.end() }
    }
}

impl AgentHello {
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut b = [0; LEN];
        b[..8].copy_from_slice(&AGENT_MAGIC);
        b[8..16].copy_from_slice(&self.nonce.to_le_bytes());
        b[16..18].copy_from_slice(&self.version.to_le_bytes());
        b[18..20].copy_from_slice(&self.newest.to_le_bytes());
        b
    }
}

/// Looks for a hello in a stream, byte by byte.
#[derive(Debug)]
pub struct Scanner {
    window: [u8; LEN],
    magic: [u8; 8],
}

impl Scanner {
    /// For the agent, which waits for a [`HostHello`].
    pub fn for_agent() -> Self {
        Scanner { window: [0xff; LEN], magic: HOST_MAGIC }
    }

    /// For the host, which waits for an [`AgentHello`].
    pub fn for_host() -> Self {
        Scanner { window: [0xff; LEN], magic: AGENT_MAGIC }
    }

    fn shift(&mut self, byte: u8) -> bool {
        self.window.rotate_left(1);
        self.window[LEN - 1] = byte;
        self.window[..8] == self.magic
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.window[at..at + N]);
        field
    }

    /// Takes one byte; the host's hello when it is complete.
    pub fn host_hello(&mut self, byte: u8) -> Option<HostHello> {
        self.shift(byte).then(|| HostHello {
            nonce: u64::from_le_bytes(self.field(8)),
            oldest: u16::from_le_bytes(self.field(16)),
            newest: u16::from_le_bytes(self.field(18)),
            generation: u32::from_le_bytes(self.field(20)),
        })
    }

    /// Takes one byte; the agent's answer when it is complete and answers `nonce`.
    pub fn agent_hello(&mut self, byte: u8, nonce: u64) -> Option<AgentHello> {
        self.shift(byte)
            .then(|| AgentHello {
                nonce: u64::from_le_bytes(self.field(8)),
                version: u16::from_le_bytes(self.field(16)),
                newest: u16::from_le_bytes(self.field(18)),
            })
            .filter(|hello| hello.nonce == nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_hellos() {
        let host = HostHello { nonce: 0x0102_0304_0506_0708, oldest: 1, newest: 2, generation: 3 };
        assert_eq!(host.to_bytes(), *b"\x00bangerH\x08\x07\x06\x05\x04\x03\x02\x01\x01\x00\x02\x00\x03\x00\x00\x00");
        let agent = AgentHello { nonce: 1, version: 1, newest: 1 };
        assert_eq!(agent.to_bytes(), *b"\x00bangerA\x01\0\0\0\0\0\0\0\x01\0\x01\0\0\0\0\0");
    }

    #[test]
    fn a_hello_is_found_behind_the_rest_of_an_older_connection() {
        let stale = HostHello::new(1, 0).answer().to_bytes();
        let mine = HostHello::new(2, 1).answer().to_bytes();
        let mut wire = b"garbage \x00bang".to_vec();
        wire.extend(stale);
        wire.extend(&stale[..13]);
        wire.extend(mine);
        let mut scanner = Scanner::for_host();
        let found: Vec<_> = wire.iter().filter_map(|b| scanner.agent_hello(*b, 2)).collect();
        assert_eq!(found, [AgentHello { nonce: 2, version: 1, newest: 1 }]);
    }

    #[test]
    fn no_common_version_is_said_so() {
        let future = HostHello { nonce: 1, oldest: 7, newest: 9, generation: 0 };
        assert_eq!(future.answer().version, 0);
        let wide = HostHello { nonce: 1, oldest: 1, newest: 9, generation: 0 };
        assert_eq!(wide.answer().version, 1);
    }
}
