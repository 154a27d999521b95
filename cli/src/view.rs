//! How data is shown: a table for people, JSON for programs. The only place that prints results.

use std::io::{IsTerminal, Write};

use banger_schemas::options::Dict;
use serde_json::{Map, Value, json};
use zbus::wire::{OwnedVariant, Variant};

use crate::error::Failure;

/// Something a command shows.
#[derive(Debug)]
pub(crate) struct Table {
    /// Heading and JSON field, in order.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    pub(crate) rows: Vec<Map<String, Value>>,
}

impl Table {
    pub(crate) fn print(&self, as_json: bool) -> Result<(), Failure> {
        if as_json { print_json(&json!(self.rows)) } else { out(&self.plain()) }
    }

    fn plain(&self) -> String {
        let cell = |row: &Map<String, Value>, field: &str| row.get(field).map(text).unwrap_or_default();
        let mut lines: Vec<Vec<String>> = vec![self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
        lines.extend(self.rows.iter().map(|row| self.columns.iter().map(|(_, field)| cell(row, field)).collect()));
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut plain = String::new();
        for line in &lines {
            let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            plain.push_str(padded.join("  ").trim_end());
            plain.push('\n');
        }
        plain
    }
}

/// One thing, field by field.
pub(crate) fn print_fields(fields: &Map<String, Value>, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print_json(&json!(fields));
    }
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    let lines = fields.iter().map(|(name, value)| format!("{name:>width$}: {}\n", text(value)));
    out(&lines.collect::<String>())
}

pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    out(&format!("{value:#}\n"))
}

/// Writes to stdout. A reader that has gone (`| head`) is no failure of ours.
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Tells the person at the terminal something that is no result.
#[allow(clippy::print_stderr, reason = "this is where notes are shown")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A dictionary of the bus as JSON: names with underscores, as programs expect them.
pub(crate) fn json_of(dict: &Dict) -> Map<String, Value> {
    dict.iter().map(|(name, value)| (name.replace('-', "_"), json_value(value))).collect()
}

pub(crate) fn json_value(value: &OwnedVariant) -> Value {
    match &**value {
        Variant::Bool(b) => json!(b),
        Variant::U32(n) => json!(n),
        Variant::U64(n) => json!(n),
        Variant::Str(s) => json!(s.as_str()),
        Variant::Array(items) => {
            json!(items.iter().filter_map(|i| i.downcast_ref::<&str>().ok()).collect::<Vec<_>>())
        }
        other => json!(format!("{other:?}")),
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// How long ago, in words; `since` in seconds of the epoch.
pub(crate) fn ago(since: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let ago = now.saturating_sub(std::time::Duration::from_secs(since));
    format!("{} ago", indicatif::HumanDuration(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let row = |name: &str, n: u64| Map::from_iter([("name".into(), json!(name)), ("n".into(), json!(n))]);
        let table =
            Table { columns: &[("NAME", "name"), ("N", "n"), ("X", "x")], rows: vec![row("a", 1), row("long", 22)] };
        assert_eq!(table.plain(), "NAME  N   X\na     1\nlong  22\n");
    }
}
