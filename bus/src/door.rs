//! The only way from a D-Bus face into an actor: bounded and timed.
//!
//! `Addr::send` waits in silence on a full mailbox and `Addr::do_send` ignores its bound, so both are disallowed
//! outside this module.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use banger_schemas::error::{Error, Kind, Result};
use tokio::sync::Semaphore;

/// Requests that may wait for one actor at once.
const PERMITS: usize = 64;
/// A handler steps and never awaits, so an answer takes microseconds; this long means something is wrong.
const DEADLINE: Duration = Duration::from_secs(5);

/// An answer that is an effect on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bounded, timed way to ask an actor.
pub struct Door<A: Actor> {
    addr: Addr<A>,
    permits: Arc<Semaphore>,
    deadline: Duration,
}

impl<A: Actor> Clone for Door<A> {
    fn clone(&self) -> Self {
        Door { addr: self.addr.clone(), permits: self.permits.clone(), deadline: self.deadline }
    }
}

impl<A: Actor> fmt::Debug for Door<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("free", &self.permits.available_permits()).finish()
    }
}

impl<A: Actor> Door<A> {
    pub fn new(addr: Addr<A>) -> Self {
        Door::bounded(addr, PERMITS, DEADLINE)
    }

    /// For an actor whose answers are effects on the host (files, links), which take as long as the host does.
    pub fn patient(addr: Addr<A>) -> Self {
        Door::bounded(addr, PERMITS, PATIENCE)
    }

    fn bounded(addr: Addr<A>, permits: usize, deadline: Duration) -> Self {
        Door { addr, permits: Arc::new(Semaphore::new(permits)), deadline }
    }

    /// Asks, and waits for the answer within the deadline.
    pub async fn ask<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        T: Send + 'static,
    {
        let _permit = self.permits.try_acquire().map_err(|_| {
            Error::new(Kind::Busy, format!("too many requests wait for {}: try again in a moment", name::<A>()))
        })?;
        #[allow(clippy::disallowed_methods, reason = "the permits bound what can wait in the mailbox")]
        let answer = self.addr.send(message);
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::new(Kind::Gone, "this object went away while the request was under way")),
            Err(_) => Err(Error::new(Kind::Timeout, format!("no answer within {} s", self.deadline.as_secs()))),
        }
    }
}

/// `Storage` of `banger_storage::actor::Storage`.
fn name<A>() -> &'static str {
    std::any::type_name::<A>().rsplit("::").next().unwrap_or_default()
}

/// Tells an actor something that must not be lost: outcomes of effects, deaths of children. One event for each
/// effect that was started, so what waits is bounded by what was begun.
pub fn post<A, M>(addr: &Addr<A>, event: M)
where
    M: Message + Send + 'static,
    M::Result: Send,
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
{
    #[allow(clippy::disallowed_methods, reason = "events are bounded by the effects that were started")]
    addr.do_send(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{AsyncContext, Context, ResponseFuture, System};

    struct Slow;
    impl Actor for Slow {
        type Context = Context<Self>;
    }
    struct Nap(u64);
    impl Message for Nap {
        type Result = Result<u64>;
    }
    impl Handler<Nap> for Slow {
        type Result = ResponseFuture<Result<u64>>;
        fn handle(&mut self, nap: Nap, _ctx: &mut Context<Self>) -> Self::Result {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(nap.0)).await;
                Ok(nap.0)
            })
        }
    }
    struct Die;
    impl Message for Die {
        type Result = Result<()>;
    }
    impl Handler<Die> for Slow {
        type Result = Result<()>;
        fn handle(&mut self, _: Die, ctx: &mut Context<Self>) -> Result<()> {
            ctx.run_later(Duration::ZERO, |_, ctx| actix::ActorContext::stop(ctx));
            Ok(())
        }
    }

    #[test]
    fn busy_slow_and_gone_are_named() {
        System::new().block_on(async {
            let door = Door::bounded(Slow.start(), 1, Duration::from_millis(60));
            assert_eq!(door.ask(Nap(1)).await, Ok(1));
            let (first, second) = tokio::join!(door.ask(Nap(20)), door.ask(Nap(1)));
            assert_eq!((first, second.unwrap_err().kind), (Ok(20), Kind::Busy));
            assert_eq!(door.ask(Nap(500)).await.unwrap_err().kind, Kind::Timeout);
            door.ask(Die).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(door.ask(Nap(1)).await.unwrap_err().kind, Kind::Gone);
        });
    }
}
