//! Samples and what is told of them.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

/// Times of one thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn extend(&mut self, others: Samples) {
        self.0.extend(others.0);
    }

    /// The time that this part (0 to 1) of all samples stays below.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
        let at = ((sorted.len() - 1) as f64 * part).round() as usize;
        sorted[at]
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

/// Nanoseconds, for another process to read.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|took| took.as_nanos().to_string()).collect();
        f.write_str(&texts.join(" "))
    }
}

impl FromStr for Samples {
    type Err = ParseIntError;
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.split_whitespace()
            .map(|word| word.parse().map(Duration::from_nanos))
            .collect::<Result<_, _>>()
            .map(Samples)
    }
}

/// Runs A and B in turns, so that whatever else the machine does meets both alike.
pub(crate) fn interleaved(
    rounds: usize,
    mut a: impl FnMut() -> Duration,
    mut b: impl FnMut() -> Duration,
) -> (Samples, Samples) {
    let (mut of_a, mut of_b) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        of_a.add(a());
        of_b.add(b());
    }
    (of_a, of_b)
}
