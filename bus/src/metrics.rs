//! Numbers of this process, as Prometheus reads them. What every service has is counted here; a service adds what is
//! its own ([`gauge`], [`seconds`], [`Population`]), once a process.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Labels are literals of the code, or names of methods that there are: their number is bounded.
type Label<T> = (&'static str, T);
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| Mutex::new(Registry::with_prefix("banger")));

static CALLS: LazyLock<Histograms<[Label<String>; 1]>> =
    LazyLock::new(|| timed("call", "Calls of methods, answered", Family::new_with_constructor(moments)));
static EFFECTS: LazyLock<Histograms<[Label<&str>; 2]>> = LazyLock::new(|| {
    timed("effect", "Effects on the host, on peers and on guests", Family::new_with_constructor(waits))
});
static JOBS: LazyLock<Family<[Label<String>; 2], Counter>> =
    LazyLock::new(|| add("jobs", "Jobs that have ended", Family::default()));

/// From half a millisecond to half a minute.
fn moments() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 4.0, 9))
}

/// From four milliseconds to a quarter of an hour.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.004, 4.0, 10))
}

fn registry() -> MutexGuard<'static, Registry> {
    // Whoever panicked has left at worst one metric out.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add<M: Metric + Clone>(name: &str, help: &str, metric: M) -> M {
    registry().register(name, help, metric.clone());
    metric
}

fn timed<M: Metric + Clone>(name: &str, help: &str, metric: M) -> M {
    registry().register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

pub(crate) fn called(method: String, took: Duration) {
    CALLS.get_or_create_owned(&[("method", method)]).observe(took.as_secs_f64());
}

pub(crate) fn effect(what: &'static str, done: bool, took: Duration) {
    let result = if done { "done" } else { "failed" };
    EFFECTS.get_or_create_owned(&[("effect", what), ("result", result)]).observe(took.as_secs_f64());
}

pub(crate) fn job_ended(kind: &str, state: &str) {
    JOBS.get_or_create_owned(&[("kind", kind.to_owned()), ("result", state.to_owned())]).inc();
}

/// A number that goes up and down.
pub fn gauge(name: &str, help: &str) -> Gauge {
    add(name, help, Gauge::default())
}

/// How long something takes that takes seconds rather than milliseconds.
pub fn seconds(name: &str, help: &str) -> Histogram {
    timed(name, help, Histogram::new(exponential_buckets(0.125, 2.0, 11)))
}

/// Things that are counted by the state that they are in.
#[derive(Debug, Clone)]
pub struct Population(Family<[Label<&'static str>; 1], Gauge>);

impl Population {
    pub fn new(name: &str, help: &str) -> Self {
        Population(add(name, help, Family::default()))
    }

    /// One more, in this state.
    pub fn member(&self, state: &'static str) -> Member {
        self.of(state).inc();
        Member { population: self.clone(), state }
    }

    fn of(&self, state: &'static str) -> Gauge {
        self.0.get_or_create_owned(&[("state", state)])
    }
}

/// One of a population, for as long as this lives.
#[derive(Debug)]
pub struct Member {
    population: Population,
    state: &'static str,
}

impl Member {
    pub fn is_now(&mut self, state: &'static str) {
        self.population.of(self.state).dec();
        self.population.of(state).inc();
        self.state = state;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.population.of(self.state).dec();
    }
}

/// All of them, as text.
pub fn text() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    encode(&mut text, &registry()).ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        called("Vms1.Create".into(), Duration::from_millis(1));
        effect("make", false, Duration::from_secs(1));
        job_ended("create", "done");
        let vms = Population::new("test_vms", "VMs");
        let mut one = vms.member("creating");
        let other = vms.member("creating");
        one.is_now("running");
        drop(other);
        let text = text();
        for line in [
            "# TYPE banger_call_seconds histogram",
            "banger_call_seconds_count{method=\"Vms1.Create\"} 1",
            "banger_effect_seconds_sum{effect=\"make\",result=\"failed\"} 1.0",
            "# TYPE banger_jobs_total counter",
            "banger_jobs_total{kind=\"create\",result=\"done\"} 1",
            "banger_test_vms{state=\"running\"} 1",
            "banger_test_vms{state=\"creating\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
