//! The key by which a guest's ssh server is known: made with the machine and the same for its whole life, so that whoever
//! asks the supervisor need not trust the first answer of the network.

use std::fmt;

use serde::{Deserialize, Serialize};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// An Ed25519 key pair.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostKey {
    /// In OpenSSH's format (PROTOCOL.key), as sshd's `HostKey` file.
    pub(crate) private: String,
    /// `ssh-ed25519 …`, as in known_hosts (sshd(8)).
    pub(crate) public: String,
}

impl HostKey {
    pub(crate) fn generate() -> ssh_key::Result<Self> {
        let pair = Ed25519Keypair::from_seed(&rand::random());
        let key = PrivateKey::new(KeypairData::Ed25519(pair), "")?;
        let private = key.to_openssh(LineEnding::LF)?.to_string();
        Ok(HostKey { private, public: key.public_key().to_openssh()? })
    }
}

/// The private half is in no log.
impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike_and_the_private_half_is_not_shown() {
        let (one, other) = (HostKey::generate().unwrap(), HostKey::generate().unwrap());
        assert_ne!(one.public, other.public);
        assert!(one.public.starts_with("ssh-ed25519 AAAA") && !one.public.ends_with(' '), "{one:?}");
        let read = PrivateKey::from_openssh(&one.private).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), one.public);
        assert_eq!(format!("{one:?}"), one.public);
    }
}
