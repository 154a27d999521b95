//! How long a boot takes: a span of the trace that it belongs to, and a number. Only a boot that was seen from its
//! launch on is timed; one that an earlier life of the service has begun is not.

use std::sync::LazyLock;
use std::time::Instant;

use banger_bus::metrics::{self, Histogram};
use banger_bus::trace::Place;

use crate::lifecycle::State;

static BOOTS: LazyLock<Histogram> =
    LazyLock::new(|| metrics::seconds("boot", "From the launch of a VM to the agent that has its identity"));

/// The boot under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Boot {
    begun: Option<Instant>,
    /// From the keeper's word that the VMM runs to the agent's.
    span: Option<tracing::Span>,
}

impl Boot {
    /// The VM is in this state now.
    pub(super) fn observe(&mut self, state: &State, place: &Place) {
        match state {
            State::Launching { .. } => _ = self.begun.get_or_insert_with(Instant::now),
            State::Booting(_) if self.begun.is_some() => {
                let _place = place.enter();
                self.span.get_or_insert_with(|| tracing::info_span!("boot"));
            }
            State::Identifying(_) => self.span = None,
            State::Running => {
                if let Some(begun) = self.begun.take() {
                    BOOTS.observe(begun.elapsed().as_secs_f64());
                }
            }
            _ => *self = Boot::default(),
        }
    }
}
