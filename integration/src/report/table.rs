//! The table on the terminal: the figures in columns as wide as they need.

use super::Report;

/// Conditions, figures beside anchors, notes, faults.
pub(super) fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    let conditions: Vec<String> =
        report.conditions.iter().map(|(name, value)| format!("{name} {value}")).collect();
    lines.push(format!("{}: {}", report.experiment, conditions.join(" · ")));
    lines.push(String::new());
    let head = ["figure", "ours", "anchor", "source"].map(str::to_string);
    let body = report
        .rows
        .iter()
        .map(|row| [row.figure.clone(), row.ours.clone(), row.theirs.clone(), row.source.clone()]);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(body).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [figure, ours, theirs, source] in &rows {
        let [a, b, c] = widths;
        let line = format!("{figure:<a$}  {ours:>b$}  {theirs:<c$}  {source}");
        lines.push(line.trim_end().to_string());
    }
    if !report.notes.is_empty() {
        lines.push(String::new());
        lines.extend(report.notes.iter().cloned());
    }
    if !report.faults.is_empty() {
        lines.push(String::new());
        lines.extend(report.faults.iter().map(|fault| format!("FAULT: {fault}")));
    }
    lines.join("\n")
}
