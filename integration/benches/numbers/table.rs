//! The table: what was measured, against what, and whether the goal holds. Knows nothing of how.

use std::fmt::{Display, Write};
use std::time::Duration;

/// All rows of a run.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: String,
    ours: String,
    against: String,
    ratio: Option<f64>,
    goal: Option<Goal>,
    met: Option<bool>,
}

/// What a ratio, or a value, is to be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Goal::AtMost(limit) => value <= limit,
            Goal::AtLeast(limit) => value >= limit,
        }
    }
}

impl Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Goal::AtMost(limit) => write!(f, "≤ {limit}"),
            Goal::AtLeast(limit) => write!(f, "≥ {limit}"),
        }
    }
}

impl Table {
    /// A headline over the rows that follow.
    pub(crate) fn section(&mut self, title: &str) {
        self.push(format!("**{title}**"), String::new(), String::new());
    }

    /// Two times and their ratio.
    pub(crate) fn compare(&mut self, what: &str, ours: Duration, against: &str, theirs: Duration, goal: Option<Goal>) {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        self.ratio(what, &time(ours), &format!("{against}: {}", time(theirs)), ratio, goal);
    }

    /// A ratio of whatever is written beside it.
    pub(crate) fn ratio(&mut self, what: &str, ours: &str, against: &str, ratio: f64, goal: Option<Goal>) {
        let row = self.push(what.to_owned(), ours.to_owned(), against.to_owned());
        row.ratio = Some(ratio);
        row.goal = goal;
        row.met = goal.map(|goal| goal.met(ratio));
    }

    /// A value with a goal of its own, in its own unit.
    pub(crate) fn value(&mut self, what: &str, value: f64, unit: &str, goal: Option<Goal>) {
        let row = self.push(what.to_owned(), format!("{value:.1} {unit}"), String::new());
        row.goal = goal;
        row.met = goal.map(|goal| goal.met(value));
    }

    /// A time that explains another one.
    pub(crate) fn time(&mut self, what: &str, took: Duration, remark: &str) {
        self.push(what.to_owned(), time(took), remark.to_owned());
    }

    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    fn push(&mut self, what: String, ours: String, against: String) -> &mut Row {
        self.rows.push(Row { what, ours, against, ratio: None, goal: None, met: None });
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }

    /// As Markdown, which reads as plain text too.
    pub(crate) fn render(&self) -> String {
        let mut cells = vec![["what", "banger", "against", "ratio", "goal", "met"].map(str::to_owned)];
        cells.extend(self.rows.iter().map(|row| {
            [
                row.what.clone(),
                row.ours.clone(),
                row.against.clone(),
                row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
                row.goal.map_or_else(String::new, |goal| goal.to_string()),
                row.met.map_or("", |met| if met { "yes" } else { "**no**" }).to_owned(),
            ]
        }));
        let widths: Vec<usize> =
            (0..6).map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for (number, row) in cells.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(text, "| {cell:width$} ").unwrap();
            }
            text.push_str("|\n");
            if number == 0 {
                widths.iter().for_each(|width| write!(text, "|{}", "-".repeat(width + 2)).unwrap());
                text.push_str("|\n");
            }
        }
        for note in &self.notes {
            write!(text, "\n{note}").unwrap();
        }
        text.push('\n');
        text
    }
}

/// Three digits that matter.
pub(crate) fn time(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    match ms {
        1000.0.. => format!("{:.2} s", ms / 1000.0),
        100.0.. => format!("{ms:.0} ms"),
        1.0.. => format!("{ms:.1} ms"),
        _ => format!("{:.0} µs", ms * 1000.0),
    }
}
