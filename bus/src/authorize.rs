//! May this caller do this? Chosen once at start: the peer's uid in embedded mode; polkit on a real host.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use banger_schemas::action::{Action, VM_MANAGE_ALL};
use banger_schemas::error::{Error, Kind, Result};

use crate::Caller;

/// What an administrator's rule can test: the VM, its owner, the image.
pub type Details<'a> = &'a [(&'a str, &'a str)];

/// Decides.
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// `Ok` when the caller may; an error that says what it lacks when not.
    fn check<'a>(
        &'a self,
        caller: &'a Caller,
        action: Action,
        details: Details<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;
}

/// Embedded mode: the one user whose process this is, and root, who could be that user anyway.
#[derive(Debug, Clone, Copy)]
pub struct PeerUid {
    pub owner: u32,
}

impl PeerUid {
    fn decide(self, caller: &Caller, action: Action) -> Result<()> {
        let own = caller.uid == self.owner && action != VM_MANAGE_ALL;
        if own || caller.uid == 0 {
            return Ok(());
        }
        Err(Error::new(Kind::NotAuthorized, format!("uid {} may not do this here ({})", caller.uid, action.0)))
    }
}

impl Authorizer for PeerUid {
    fn check<'a>(
        &'a self,
        caller: &'a Caller,
        action: Action,
        _details: Details<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        Box::pin(ready(self.decide(caller, action)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_schemas::action::{VIEW, VM_CREATE};

    #[test]
    fn only_the_owner_and_root_may() {
        let caller = |uid| Caller { name: ":1.1".try_into().unwrap(), uid, pid: None };
        let peer = PeerUid { owner: 1000 };
        assert!(peer.decide(&caller(1000), VM_CREATE).is_ok());
        assert!(peer.decide(&caller(0), VM_MANAGE_ALL).is_ok());
        assert!(peer.decide(&caller(1000), VM_MANAGE_ALL).is_err());
        assert_eq!(peer.decide(&caller(1001), VIEW).unwrap_err().kind, Kind::NotAuthorized);
    }
}
