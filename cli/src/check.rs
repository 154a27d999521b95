//! Checks and what they come to: a table of verdicts with cures, for doctor and for the state of an installation.

use serde_json::{Map, Value, json};

use crate::error::{Failure, code};
use crate::view::Table;

const COLUMNS: &[(&str, &str)] = &[("", "verdict"), ("WHAT", "what"), ("FOUND", "found"), ("CURE", "cure")];

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Works, slower or without something.
    Warn,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) verdict: Verdict,
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) cure: String,
}

impl Row {
    pub(crate) fn new(
        verdict: Verdict,
        what: impl Into<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Row { verdict, what: what.into(), found: found.into(), cure: cure.into() }
    }

    fn fields(&self) -> Map<String, Value> {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let fields = [("verdict", verdict), ("what", &self.what), ("found", &self.found), ("cure", &self.cure)];
        fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }
}

/// Shows them. The exit status is 0 when everything needed is there.
pub(crate) fn show(rows: &[Row], as_json: bool) -> Result<u8, Failure> {
    Table { columns: COLUMNS, rows: rows.iter().map(Row::fields).collect() }.print(as_json)?;
    Ok(if rows.iter().any(|row| row.verdict == Verdict::Fail) { code::FAILED } else { code::OK })
}
