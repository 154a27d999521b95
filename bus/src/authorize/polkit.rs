//! A real host: polkit(8) decides, from its defaults and the administrator's rules. The peers of an action are known
//! by their uids and not asked about.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use banger_schemas::action::{ALL, Action, Defaults};
use banger_schemas::error::{Error, Kind, Result};
use nix::unistd::User;
use zbus::proxy::MethodFlags;
use zbus::wire::Variant;
use zbus::{Connection, Proxy};

use super::questions::Questions;
use super::{Answer, Authorizer, Details, not_authorized};
use crate::Caller;
use crate::caller::Callers;

/// polkit answers by itself in a millisecond. A person takes as long as a person does.
const MOMENT: Duration = Duration::from_secs(20);
const NAME: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";
/// `CheckAuthorizationFlags`.
const ALLOW_USER_INTERACTION: u32 = 1;

// Two methods are needed of polkit. The crate for it makes a subject only of a message's header, which is not kept as
// long as a caller's name is.

/// Kind, details.
type Subject<'a> = (&'a str, HashMap<&'a str, Variant<'a>>);
/// Subject, action, details, flags, cancellation id.
type Question<'a> = (Subject<'a>, &'a str, HashMap<&'a str, &'a str>, u32, &'a str);
/// Is authorized, would be if somebody were asked, details.
type Verdict = (bool, bool, HashMap<String, String>);

#[derive(Debug)]
pub(super) struct Polkit {
    authority: Proxy<'static>,
    callers: Callers,
    /// Uids of services' users.
    users: HashMap<&'static str, u32>,
    questions: Questions,
    asked: Arc<AtomicU64>,
}

impl Polkit {
    pub(super) async fn new(bus: &Connection, callers: Callers) -> Result<Self> {
        let names = ALL.iter().flat_map(|action| action.peers).copied();
        let users = names.filter_map(|name| Some((name, uid(name)?))).collect();
        let authority = Proxy::new(bus, NAME, PATH, INTERFACE).await?;
        Ok(Polkit { authority, callers, users, questions: Questions::default(), asked: Arc::default() })
    }

    async fn decide(&self, caller: &Caller, action: &'static Action, details: Details<'_>) -> Result<()> {
        if self.lets_at_once(caller, action) {
            return Ok(());
        }
        let Some(policy) = &action.policy else {
            return Err(not_authorized(format!("only services of banger may do this ({})", action.id)));
        };
        let _place = self.questions.place(caller)?;
        let (authorized, challenge, _) = if caller.interactive {
            self.ask_a_person(caller, action, details).await?
        } else {
            let asked = tokio::time::timeout(MOMENT, self.ask(caller, action, details, 0, ""));
            asked.await.map_err(|_| silent(&format!("no answer within {} s", MOMENT.as_secs())))??
        };
        match (authorized, challenge) {
            (true, _) => Ok(()),
            (false, true) => Err(not_authorized(challenged(action, policy.defaults))),
            (false, false) => Err(not_authorized(format!("you may not do this on this host ({})", action.id))),
        }
    }

    /// Asks, and has polkit put its dialog away when the caller goes.
    async fn ask_a_person(&self, caller: &Caller, action: &Action, details: Details<'_>) -> Result<Verdict> {
        let id = format!("banger-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        tokio::select! {
            verdict = self.ask(caller, action, details, ALLOW_USER_INTERACTION, &id) => verdict,
            () = self.callers.gone(&caller.name) => {
                // There may be nothing left to cancel.
                drop(self.authority.call_noreply("CancelCheckAuthorization", &(&id,)).await);
                Err(Error::new(Kind::Canceled, "who asked is gone"))
            }
        }
    }

    async fn ask(
        &self,
        caller: &Caller,
        action: &Action,
        details: Details<'_>,
        flags: u32,
        cancellation_id: &str,
    ) -> Result<Verdict> {
        let subject = ("system-bus-name", HashMap::from([("name", Variant::from(caller.name.as_str()))]));
        let details = details.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
        let question: Question<'_> = (subject, action.id, details, flags, cancellation_id);
        // A call with flags has no deadline of the connection's.
        let verdict = self.authority.call_with_flags("CheckAuthorization", MethodFlags::empty(), &question).await;
        verdict.map_err(|e| silent(&e.to_string()))?.ok_or_else(|| silent("no answer"))
    }
}

impl Authorizer for Polkit {
    fn check<'a>(&'a self, caller: &'a Caller, action: &'static Action, details: Details<'a>) -> Answer<'a> {
        Box::pin(self.decide(caller, action, details))
    }

    /// Root and peers. polkit lets root do everything, too: this way it can even where polkit is broken.
    fn lets_at_once(&self, caller: &Caller, action: &'static Action) -> bool {
        caller.uid == 0 || action.peers.iter().any(|name| self.users.get(name) == Some(&caller.uid))
    }
}

/// What would help who could be asked for a password, and was not.
fn challenged(action: &Action, defaults: Defaults) -> String {
    let id = action.id;
    match defaults {
        Defaults::Sandbox => format!(
            "an administrator may allow it ({id}): run this in a terminal to be asked for a password, or join the \
             group banger (sudo usermod -aG banger $USER)"
        ),
        Defaults::Host => {
            format!("it takes an administrator ({id}): run this in a terminal to be asked for a password, or with sudo")
        }
    }
}

fn silent(why: &str) -> Error {
    Error::new(
        Kind::Unavailable,
        format!("polkit does not say whether you may do this ({why}): 'systemctl status polkit' shows how it is"),
    )
}

fn uid(name: &'static str) -> Option<u32> {
    match User::from_name(name) {
        Ok(Some(user)) => Some(user.uid.as_raw()),
        Ok(None) => {
            tracing::warn!(name, "there is no such user: 'systemd-sysusers' makes it");
            None
        }
        Err(error) => {
            tracing::warn!(name, %error, "this user cannot be looked up: its service will be refused");
            None
        }
    }
}
