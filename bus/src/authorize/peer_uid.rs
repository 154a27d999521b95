//! Embedded mode: the one user whose process this is, and root, who could be that user anyway.

use std::future::ready;

use banger_schemas::action::{Action, VM_MANAGE_ALL};
use banger_schemas::error::Result;

use super::{Answer, Authorizer, Details, not_authorized};
use crate::Caller;

#[derive(Debug, Clone, Copy)]
pub(super) struct PeerUid {
    pub(super) owner: u32,
}

impl PeerUid {
    fn decide(self, caller: &Caller, action: &Action) -> Result<()> {
        let own = caller.uid == self.owner && action != VM_MANAGE_ALL;
        if own || caller.uid == 0 {
            return Ok(());
        }
        Err(not_authorized(format!("uid {} may not do this here ({})", caller.uid, action.id)))
    }
}

impl Authorizer for PeerUid {
    fn check<'a>(&'a self, caller: &'a Caller, action: &'static Action, _details: Details<'a>) -> Answer<'a> {
        Box::pin(ready(self.decide(caller, action)))
    }

    fn lets_at_once(&self, caller: &Caller, action: &'static Action) -> bool {
        self.decide(caller, action).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_schemas::action::{VIEW, VM_CREATE};
    use banger_schemas::error::Kind;

    #[test]
    fn only_the_owner_and_root_may() {
        let peer = PeerUid { owner: 1000 };
        assert!(peer.decide(&Caller::of_uid(1000), VM_CREATE).is_ok());
        assert!(peer.decide(&Caller::of_uid(0), VM_MANAGE_ALL).is_ok());
        assert!(peer.decide(&Caller::of_uid(1000), VM_MANAGE_ALL).is_err());
        assert_eq!(peer.decide(&Caller::of_uid(1001), VIEW).unwrap_err().kind, Kind::NotAuthorized);
    }
}
