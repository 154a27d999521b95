//! Children that die are made again. actix's `Supervisor` does not restart an actor that panicked, so the parent
//! does it from the child's record: [`Family`] counts deaths and says when to stop trying.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};

/// Deaths within [`WINDOW`] after which a child is left alone and shown degraded.
const CAP: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// What the parent does about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stopped on purpose.
    Forget,
    /// Make it again from its record after this long.
    Restart(Duration),
    /// Too many deaths: show it degraded.
    GiveUp,
}

struct Member<A: Actor> {
    addr: Option<Addr<A>>,
    deaths: Vec<Instant>,
}

/// The living children of a parent, by id.
pub struct Family<K, A: Actor> {
    members: HashMap<K, Member<A>>,
}

impl<K, A: Actor> Default for Family<K, A> {
    fn default() -> Self {
        Family { members: HashMap::new() }
    }
}

impl<K: fmt::Debug, A: Actor> fmt::Debug for Family<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.keys()).finish()
    }
}

impl<K: Eq + Hash + Clone, A: Actor> Family<K, A> {
    pub fn insert(&mut self, id: K, addr: Addr<A>) {
        self.members.entry(id).or_insert_with(|| Member { addr: None, deaths: Vec::new() }).addr = Some(addr);
    }

    /// The child, if it lives.
    pub fn get(&self, id: &K) -> Option<&Addr<A>> {
        self.members.get(id)?.addr.as_ref()
    }

    /// A child's [`Guard`] has reported.
    pub fn gone(&mut self, id: &K, panicked: bool, now: Instant) -> Verdict {
        if !panicked {
            self.members.remove(id);
            return Verdict::Forget;
        }
        let Some(member) = self.members.get_mut(id) else { return Verdict::Forget };
        member.addr = None;
        member.deaths.retain(|death| now.duration_since(*death) < WINDOW);
        member.deaths.push(now);
        match member.deaths.len() {
            n if n >= CAP => Verdict::GiveUp,
            n => Verdict::Restart(Duration::from_millis(100 << n)),
        }
    }
}

/// A field of a child that tells the parent of its end, however it came.
pub struct Guard {
    report: Option<Box<dyn FnOnce(bool)>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    /// `report` gets whether the child panicked.
    pub fn new(report: impl FnOnce(bool) + 'static) -> Self {
        Guard { report: Some(Box::new(report)) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(std::thread::panicking());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{Context, Handler, Message, System};
    use banger_schemas::error::Result;

    struct Child {
        _guard: Guard,
    }
    impl Actor for Child {
        type Context = Context<Self>;
    }
    struct Boom;
    impl Message for Boom {
        type Result = Result<()>;
    }
    impl Handler<Boom> for Child {
        type Result = Result<()>;
        fn handle(&mut self, _: Boom, _: &mut Context<Self>) -> Result<()> {
            panic!("on purpose")
        }
    }

    #[test]
    fn a_panic_is_reported_and_three_in_a_minute_are_enough() {
        System::new().block_on(async {
            let mut family = Family::<u8, Child>::default();
            for expected in [
                Verdict::Restart(Duration::from_millis(200)),
                Verdict::Restart(Duration::from_millis(400)),
                Verdict::GiveUp,
            ] {
                let (tell, told) = tokio::sync::oneshot::channel();
                let guard = Guard::new(move |panicked| tell.send(panicked).unwrap());
                let addr = Child { _guard: guard }.start();
                family.insert(7, addr.clone());
                crate::post(&addr, Boom);
                assert!(told.await.unwrap(), "the guard must see the panic");
                assert_eq!(family.gone(&7, true, Instant::now()), expected);
                assert!(family.get(&7).is_none());
            }
        });
    }
}
