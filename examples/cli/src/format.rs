//! Bytes, times and tables for people.

use std::fmt::Write as _;

/// A byte count: `98.4 MB`.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// Seconds: `0.12 s`, `41 s`, `3:07`.
pub(crate) fn seconds(s: f64) -> String {
    match s {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s => clock(s),
    }
}

/// Minutes and seconds, with hours if there are any: `0:07`, `1:02:03`.
pub(crate) fn clock(s: f64) -> String {
    let s = s.round().clamp(0.0, 359_999.0) as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// A speed in tokens per second: three digits are enough.
pub(crate) fn rate(tps: f64) -> String {
    match tps {
        t if t >= 100.0 => format!("{t:.0} tok/s"),
        t => format!("{t:.1} tok/s"),
    }
}

/// `1 token`, `2 tokens`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Rows in columns as wide as their widest cell, two spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|s| s.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text that cannot move a terminal's cursor or change its colours: control characters other than line breaks and tabs
/// are shown as U+FFFD.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!([bytes(999), bytes(98_362_432)], ["999 B", "98.4 MB"]);
        assert_eq!(
            [seconds(0.123), seconds(59.4), seconds(187.0)],
            ["0.12 s", "59 s", "3:07"]
        );
        assert_eq!([clock(7.4), clock(3723.0)], ["0:07", "1:02:03"]);
        assert_eq!([rate(98.76), rate(210.4)], ["98.8 tok/s", "210 tok/s"]);
        assert_eq!(
            [count(1, "token"), count(0, "token")],
            ["1 token", "0 tokens"]
        );
    }

    #[test]
    fn columns_line_up() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("a", "b"), row("né…", "")]), "a    b\nné…\n");
    }

    #[test]
    fn escapes_are_shown_and_not_obeyed() {
        assert_eq!(harmless("a\x1b[31m\tb\r\n"), "a\u{fffd}[31m\tb\u{fffd}\n");
    }
}
