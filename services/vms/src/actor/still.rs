//! A boot that stands still, which an emulated one does once in some hundreds: QEMU 7.2 can keep a breakpoint for ever
//! that the guest's kernel sets and takes away where it patches itself. No word follows on its console, and no agent's.

use std::time::{Duration, Instant};

use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind};

use super::Tools;

/// Between two looks at the console. Most boots are over before the first.
const LOOK: Duration = Duration::from_secs(2);
/// So long at least a kernel is silent that stands still, and so many times as long as it has talked: where others keep the
/// processors busy, or guests are emulated in one that is emulated, it talks slowly and pauses long.
const SILENCE: Duration = Duration::from_secs(10);
const TIMES: u32 = 5;

/// Returns when a kernel that has begun to talk has stopped to, and says so.
pub(super) async fn stands_still(tools: Tools, vm: VmId) -> Error {
    let mut speech = Speech::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let said = tools.console_so_far(&vm).await;
        if let Some(silent) = speech.silence(said, Instant::now()) {
            let message = format!("its emulated kernel stood still for {} s", silent.as_secs());
            return Error::new(Kind::Timeout, message);
        }
    }
}

/// What was said, since when, and when the last of it.
#[derive(Debug, Default)]
struct Speech {
    said: String,
    times: Option<(Instant, Instant)>,
}

impl Speech {
    /// Takes note of all that was said until now. How long nothing was, if that is too long.
    fn silence(&mut self, said: String, now: Instant) -> Option<Duration> {
        if said != self.said {
            let (began, _) = self.times.unwrap_or((now, now));
            (self.said, self.times) = (said, Some((began, now)));
        }
        let (began, last) = self.times?;
        let (talked, silent) = (last - began, now - last);
        (silent >= SILENCE.max(TIMES * talked)).then_some(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it is found to stand still, if it said one more word at each of these seconds.
    fn found(words: &[u64]) -> Option<u64> {
        let begun = Instant::now();
        let mut speech = Speech::default();
        (0..600).find(|second| {
            let said = "word".repeat(words.iter().filter(|word| *word <= second).count());
            speech.silence(said, begun + Duration::from_secs(*second)).is_some()
        })
    }

    #[test]
    fn who_has_talked_for_long_may_be_silent_for_long_and_who_has_not_begun_for_ever() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[3]), Some(13));
        assert_eq!(found(&[3, 4, 5]), Some(15));
        assert_eq!(found(&[3, 12]), Some(57));
        assert_eq!(found(&[3, 12, 50]), Some(285));
    }
}
