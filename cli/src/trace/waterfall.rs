//! A trace as text: each span below its parent, with a bar for when it was. Knows nothing of where spans come from.

use std::collections::{BTreeMap, BTreeSet};

use banger_schemas::observe::{Span, TraceId};

/// Columns of the bars.
const BARS: usize = 32;
/// A name with its place in the tree; longer ones are cut.
const NAME: usize = 52;

/// Spans in the order of their start.
pub(super) fn draw(trace: TraceId, spans: &[Span]) -> String {
    let begin = spans.iter().map(|span| span.start).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.start.saturating_add(span.duration)).max().unwrap_or(0);
    let services: BTreeSet<String> = spans.iter().map(|span| clean(&span.service)).collect();
    let rows = rows(spans);
    let width =
        rows.iter().map(|(depth, span)| depth * 2 + span.name.chars().count()).max().unwrap_or(0).clamp(4, NAME);
    let who = services.iter().map(|service| service.len()).max().unwrap_or(0).max(7);
    let mut text = format!("trace {trace}: {} spans of {}\n", spans.len(), Vec::from_iter(services).join(", "));
    text += &format!("{:width$}  {:who$}  {:>9}  {:>9}\n", "SPAN", "SERVICE", "FROM ms", "TOOK ms");
    for (depth, span) in rows {
        let name: String =
            format!("{:indent$}{}", "", clean(&span.name), indent = depth * 2).chars().take(width).collect();
        let from = span.start - begin;
        let bar = bar(from, span.duration, end - begin);
        let line = format!(
            "{name:width$}  {:who$}  {:>9}  {:>9}  {bar:BARS$}  {}",
            clean(&span.service),
            milliseconds(from),
            milliseconds(span.duration),
            clean(span.error.lines().next().unwrap_or("")),
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Each span with its depth, children behind their parent. One whose parent is not among them stands at the top.
fn rows(spans: &[Span]) -> Vec<(usize, &Span)> {
    let ids: BTreeSet<u64> = spans.iter().map(|span| span.id).collect();
    let mut children: BTreeMap<Option<u64>, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        let parent = Some(span.parent).filter(|parent| ids.contains(parent) && *parent != span.id);
        children.entry(parent).or_default().push(span);
    }
    let mut rows = Vec::new();
    let mut next: Vec<(usize, &Span)> = Vec::new();
    let mut push = |next: &mut Vec<_>, of: Option<u64>, depth: usize| {
        // Taken, so that a circle ends.
        let below = children.remove(&of).unwrap_or_default();
        next.extend(below.into_iter().rev().map(|span| (depth, span)));
    };
    push(&mut next, None, 0);
    while let Some((depth, span)) = next.pop() {
        rows.push((depth, span));
        push(&mut next, Some(span.id), depth + 1);
    }
    rows
}

fn bar(from: u64, took: u64, whole: u64) -> String {
    let column = |time: u64| {
        let scaled = u128::from(time) * BARS as u128 / u128::from(whole.max(1));
        usize::try_from(scaled).unwrap_or(BARS).min(BARS)
    };
    let begin = column(from).min(BARS - 1);
    let end = column(from.saturating_add(took)).max(begin + 1);
    " ".repeat(begin) + &"█".repeat(end - begin)
}

fn milliseconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What others say never drives the terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceId = TraceId(0xabc);

    fn span(name: &str, service: &str, (id, parent): (u64, u64), (start, duration): (u64, u64)) -> Span {
        let ms = 1_000_000;
        Span {
            name: name.into(),
            service: service.into(),
            id,
            parent,
            start: 5_000_000_000 + start * ms,
            duration: duration * ms,
            error: String::new(),
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn each_span_stands_below_what_it_was_done_for() {
        let mut spans = vec![
            span("banger vm run", "banger", (1, 99), (0, 320)),
            span("Vms1.Create", "Vms1", (2, 1), (10, 10)),
            span("create job", "Vms1", (3, 2), (15, 165)),
            span("Sessions1.Exec", "Sessions1", (4, 1), (200, 20)),
        ];
        spans[3].error = "no such machine\nsecond line".into();
        let text = draw(TRACE, &spans);
        let expected = "\
trace 00000000000000000000000000000abc: 4 spans of Sessions1, Vms1, banger
SPAN              SERVICE      FROM ms    TOOK ms
banger vm run     banger           0.0      320.0  ████████████████████████████████
  Vms1.Create     Vms1            10.0       10.0   █
    create job    Vms1            15.0      165.0   █████████████████
  Sessions1.Exec  Sessions1      200.0       20.0                      ██            no such machine
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn nothing_that_services_say_breaks_the_picture() {
        assert!(draw(TRACE, &[]).starts_with("trace "));
        let own_parent = span("a", "s", (1, 1), (0, 0));
        let circle = [span("b", "s", (2, 3), (0, 1)), span("c", "s", (3, 2), (0, 1))];
        assert_eq!(draw(TRACE, &[own_parent]).lines().count(), 3);
        // Two that are each other's parents belong to nothing, and end.
        assert_eq!(draw(TRACE, &circle).lines().count(), 2);
        let mut wild = span("\x1b[2J", "s\n", (4, 0), (0, 1));
        (wild.start, wild.duration) = (u64::MAX, u64::MAX);
        let text = draw(TRACE, &[span("x", "s", (5, 0), (0, 1)), wild]);
        assert!(!text.contains('\x1b') && text.lines().count() == 4, "{text}");
    }
}
