//! The host's processor: the rate of its time-stamp counter, which an emulated guest sees as its own and cannot calibrate,
//! and what it is.
//!
//! Knows nothing of the kernel argument it ends up in.

use std::time::{Duration, Instant};

/// Measurements over this agree within five parts in a million.
const BASELINE: Duration = Duration::from_millis(5);

/// A first look at counter and clock; the rate comes from the second look.
#[derive(Debug, Clone, Copy)]
pub struct Tsc(Sample);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    ticks: u64,
}

impl Tsc {
    /// Begins the measurement. Taken at the process's start, it costs a launch nothing.
    pub fn start() -> Self {
        Tsc(Sample::take())
    }

    /// The rate in kHz; `None` where there is no such counter.
    pub async fn khz(self) -> Option<u32> {
        tokio::time::sleep(BASELINE.saturating_sub(self.0.at.elapsed())).await;
        rate(self.0, Sample::take())
    }
}

fn rate(from: Sample, to: Sample) -> Option<u32> {
    let nanos = to.at.duration_since(from.at).as_nanos();
    let ticks = u128::from(to.ticks.checked_sub(from.ticks)?);
    u32::try_from((ticks * 1_000_000).checked_div(nanos)?).ok().filter(|khz| *khz > 0)
}

impl Sample {
    /// The counter between two looks at the clock; of a few, the one that the scheduler disturbed least.
    fn take() -> Self {
        let looks = std::array::from_fn::<_, 8, _>(|_| {
            let before = Instant::now();
            let ticks = ticks();
            let width = before.elapsed();
            (width, Sample { at: before + width / 2, ticks })
        });
        looks.into_iter().min_by_key(|(width, _)| *width).map_or(Sample { at: Instant::now(), ticks: 0 }, |(_, s)| s)
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "reading the counter is an intrinsic")]
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction; it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}

/// What the processor says that it is and can do, as words of cpuid (Intel SDM vol. 2A, CPUID).
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "asking the processor is an intrinsic")]
#[allow(unused_unsafe, reason = "which newer compilers call safe")]
pub(crate) fn processor() -> String {
    // SAFETY: every x86-64 processor has the instruction; it touches no memory.
    let leaf = |leaf| unsafe { core::arch::x86_64::__cpuid_count(leaf, 0) };
    let (maker, version, features, extended) = (leaf(0), leaf(1), leaf(7), leaf(0x8000_0001));
    // Not the second word of leaf 1: it says which of the processors answers.
    let words = [
        maker.ebx,
        maker.ecx,
        maker.edx,
        version.eax,
        version.ecx,
        version.edx,
        features.ebx,
        features.ecx,
        features.edx,
        extended.ecx,
        extended.edx,
    ];
    words.map(|word| format!("{word:x}")).join("-")
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn processor() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_measurements_agree() {
        let first = Tsc::start().khz().await;
        let second = Tsc::start().khz().await;
        if cfg!(target_arch = "x86_64") {
            let (first, second) = (first.unwrap(), second.unwrap());
            assert!(first.abs_diff(second) < first / 1000, "{first} and {second} kHz");
        }
    }

    #[test]
    fn a_counter_that_stands_or_runs_backwards_has_no_rate() {
        let at = Instant::now();
        let later = at + Duration::from_millis(20);
        assert_eq!(rate(Sample { at, ticks: 5 }, Sample { at: later, ticks: 5 }), None);
        assert_eq!(rate(Sample { at, ticks: 5 }, Sample { at: later, ticks: 4 }), None);
        assert_eq!(rate(Sample { at, ticks: 0 }, Sample { at, ticks: 4 }), None);
        assert_eq!(rate(Sample { at, ticks: 0 }, Sample { at: later, ticks: 40_000_000 }), Some(2_000_000));
    }
}
