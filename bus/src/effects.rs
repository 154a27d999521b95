//! Effects: run, time out, trace, report back. A handler never awaits; what an effect brought comes back to the
//! actor as one more call.

use std::future::Future;
use std::time::{Duration, Instant};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, AsyncContext, Context, SpawnHandle};
use banger_schemas::error::{Error, Kind, Result};
use tracing::Instrument;

use crate::{fault, metrics};

/// Starts an effect of an actor; `then` gets its outcome. The effect dies with the actor, so it must be one that
/// recovery can finish or undo.
pub fn run<A, T, F, G>(ctx: &mut Context<A>, what: &'static str, deadline: Duration, effect: F, then: G) -> SpawnHandle
where
    A: Actor<Context = Context<A>>,
    F: Future<Output = Result<T>> + 'static,
    T: 'static,
    G: FnOnce(&mut A, Result<T>, &mut Context<A>) + 'static,
{
    let timed = within(what, deadline, effect);
    ctx.spawn(wrap_future::<_, A>(timed).map(move |outcome, actor, ctx| {
        if let Err(error) = &outcome {
            tracing::warn!(what, %error, "effect failed");
        }
        then(actor, outcome, ctx);
    }))
}

/// The seconds that a variable says, for tests; else this long.
pub fn deadline(variable: &str, usual: Duration) -> Duration {
    let given = std::env::var(variable).ok().and_then(|seconds| seconds.parse().ok());
    given.map_or(usual, Duration::from_secs)
}

/// A future with a deadline; being late is a named error. It belongs to the trace of whoever makes this call, wherever
/// it is waited for.
pub fn within<T>(
    what: &'static str,
    deadline: Duration,
    future: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    let span = tracing::info_span!("effect", what, error = tracing::field::Empty);
    let late = move |_| Err(Error::new(Kind::Timeout, format!("{what} took longer than {} s", deadline.as_secs())));
    let here = span.clone();
    let timed = async move {
        fault::pass(what, "before");
        let begun = Instant::now();
        let outcome = tokio::time::timeout(deadline, future).await.unwrap_or_else(late);
        fault::pass(what, "after");
        metrics::effect(what, outcome.is_ok(), begun.elapsed());
        if let Err(error) = &outcome {
            here.record("error", error.message.as_str());
        }
        outcome
    };
    timed.instrument(span)
}

/// Runs what blocks (files, commits) off the service's thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let watched = move || {
        fault::pass("work", "before");
        let outcome = work();
        fault::pass("work", "after");
        outcome
    };
    tokio::task::spawn_blocking(watched).await.unwrap_or_else(|e| Err(Error::internal(format!("a worker died: {e}"))))
}
