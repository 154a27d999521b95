//! What a guest takes from its host for as long as it lives: one that was frozen goes on only where that is the same.

use banger_schemas::keeper::{Backend, Origin};
use nix::sys::utsname::uname;

use crate::tsc::{Tsc, processor};

/// Rates that differ by less are one rate, measured twice: parts in a million.
const SAME_RATE: u64 = 250;

/// This host, as a guest under this backend sees it.
pub(crate) async fn here(backend: Backend, tsc: Tsc) -> Origin {
    // An emulated processor is the emulator's; otherwise it is what the kernel lets through of the real one.
    let processor = (backend != Backend::QemuTcg).then(|| {
        let kernel = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
        format!("{} {kernel}", processor())
    });
    Origin { tsc_khz: tsc.khz().await, processor }
}

/// What of it is another now, as a sentence.
pub(crate) fn changed(then: &Origin, now: &Origin) -> Option<String> {
    if then.processor != now.processor {
        return Some("the processor or the host's kernel is not what it was frozen under".into());
    }
    let same = match (then.tsc_khz, now.tsc_khz) {
        (Some(then), Some(now)) => u64::from(then.abs_diff(now)) * 1_000_000 <= u64::from(then) * SAME_RATE,
        (then, now) => then == now,
    };
    (!same).then(|| "the host's time-stamp counter has another rate than when it was frozen".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_processor_or_another_rate_is_another_host() {
        let origin = |khz: u32| Origin { tsc_khz: Some(khz), processor: None };
        let then = origin(2_600_000);
        assert_eq!(changed(&then, &origin(2_600_013)), None, "measured twice");
        assert!(changed(&then, &origin(2_626_000)).is_some_and(|why| why.contains("rate")), "one in a hundred");
        assert!(changed(&then, &Origin { tsc_khz: None, ..then.clone() }).is_some());
        let moved = Origin { processor: Some("other".into()), ..then.clone() };
        assert!(changed(&then, &moved).is_some_and(|why| why.contains("processor")));
    }

    #[tokio::test]
    async fn a_host_is_itself() {
        for backend in [Backend::QemuTcg, Backend::QemuKvm] {
            let (one, two) = (here(backend, Tsc::start()).await, here(backend, Tsc::start()).await);
            assert_eq!(changed(&one, &two), None, "{one:?} {two:?}");
            assert_eq!(one.processor.is_some(), backend == Backend::QemuKvm);
        }
    }
}
