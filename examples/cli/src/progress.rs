//! The progress line on standard error.
//!
//! On a terminal one line is drawn over and cleared at the end; elsewhere a plain line comes at the start of a phase and at
//! every further quarter.

use crate::format;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A progress line is on the screen.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Things that take less are not worth a line.
const PATIENCE: Duration = Duration::from_millis(300);

/// One state of a phase.
pub(crate) struct Progress<'a> {
    pub(crate) phase: &'a str,
    pub(crate) file: &'a str,
    pub(crate) done: u64,
    /// Bytes in all, if known. Zero stands for a count of nothing: then neither is shown.
    pub(crate) total: Option<u64>,
    pub(crate) speed_bps: Option<f64>,
    pub(crate) eta_s: Option<f64>,
}

/// See the module's head.
pub(crate) struct Bar {
    terminal: bool,
    phase: String,
    since: Instant,
    /// Quarters already told on a plain line.
    quarters: Option<u64>,
}

impl Bar {
    /// A bar for this process's standard error.
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Bar {
            terminal,
            phase: String::new(),
            since: Instant::now(),
            quarters: None,
        }
    }

    /// Shows where things stand.
    pub(crate) fn show(&mut self, p: &Progress<'_>) {
        if self.phase != p.phase {
            p.phase.clone_into(&mut self.phase);
            (self.since, self.quarters) = (Instant::now(), None);
        }
        if self.since.elapsed() < PATIENCE {
            return;
        }
        let mut err = std::io::stderr().lock();
        // Nobody is left to be told if standard error is closed.
        let _ = if self.terminal {
            let columns =
                terminal_size::terminal_size_of(&err).map_or(80, |(w, _)| usize::from(w.0));
            DRAWN.store(true, Ordering::SeqCst);
            write!(err, "\r{}\x1b[K", line(p, columns.saturating_sub(1))).and_then(|()| err.flush())
        } else {
            let quarters = percent(p).map_or(0, |n| n / 25);
            if self.quarters.is_some_and(|told| told >= quarters) {
                return;
            }
            self.quarters = Some(quarters);
            writeln!(err, "{}", plain(p))
        };
    }
}

/// Removes the progress line, so that something else can be written. Safe to call from any thread.
pub(crate) fn leave_line() {
    if DRAWN.swap(false, Ordering::SeqCst) {
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
    }
}

fn percent(p: &Progress<'_>) -> Option<u64> {
    let total = p.total.filter(|&t| t > 0)?;
    Some((u128::from(p.done.min(total)) * 100 / u128::from(total)) as u64)
}

/// `45.2/98.4 MB · 5.1 MB/s · 0:10 left`, as far as it is known.
fn numbers(p: &Progress<'_>) -> String {
    let mut parts = Vec::new();
    match p.total.filter(|&t| t > 0) {
        Some(total) => parts.push(format!(
            "{} of {}",
            format::bytes(p.done),
            format::bytes(total)
        )),
        None if p.done > 0 => parts.push(format::bytes(p.done)),
        None => {}
    }
    if let Some(speed) = p.speed_bps {
        parts.push(format!("{}/s", format::bytes(speed as u64)));
    }
    if let Some(eta) = p.eta_s.filter(|&s| s > 0.0) {
        parts.push(format!("{} left", format::clock(eta.max(1.0))));
    }
    parts.join(" · ")
}

fn plain(p: &Progress<'_>) -> String {
    let percent = percent(p).map(|n| format!(" {n} %")).unwrap_or_default();
    let numbers = numbers(p);
    let dot = if numbers.is_empty() { "" } else { " · " };
    format!("{} {}{percent}{dot}{numbers}", p.phase, p.file)
}

/// The line for a terminal of `columns` columns: the file's name gives way first, then the bar. What is shown depends on
/// the width alone, so that the line does not jump as the numbers grow.
fn line(p: &Progress<'_>, columns: usize) -> String {
    const BAR: usize = 20;
    const NUMBERS: usize = 46;
    const NAME: usize = 12;
    let Some(percent) = percent(p) else {
        return cut(&plain(p), columns);
    };
    let numbers = numbers(p);
    let full = percent as usize * BAR / 100;
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
    let with_bar = p.phase.chars().count() + BAR + NUMBERS + " 100 %  ".len();
    let line = match columns.checked_sub(with_bar) {
        Some(room) if room > NAME => {
            format!(
                "{} {} {bar} {percent:>3} % {numbers}",
                p.phase,
                cut(p.file, room - 1)
            )
        }
        Some(_) => format!("{} {bar} {percent:>3} % {numbers}", p.phase),
        None => format!("{} {percent:>3} % {numbers}", p.phase),
    };
    cut(&line, columns)
}

/// At most so many characters; an ellipsis shows that some are missing.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(columns.saturating_sub(1)).collect();
    if columns > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half() -> Progress<'static> {
        Progress {
            phase: "downloading",
            file: "a-model-with-a-name",
            done: 49_000_000,
            total: Some(98_000_000),
            speed_bps: Some(5e6),
            eta_s: Some(9.8),
        }
    }

    #[test]
    fn the_line_fits_every_terminal() {
        for columns in 0..120 {
            assert!(line(&half(), columns).chars().count() <= columns);
        }
        let wide = line(&half(), 120);
        assert!(
            wide.contains(
                "a-model-with-a-name ██████████░░░░░░░░░░  50 % 49.0 MB of 98.0 MB · 5.0 MB/s · 0:10 left"
            ),
            "{wide}"
        );
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let p = Progress {
            phase: "resolving",
            file: "m",
            done: 0,
            total: None,
            speed_bps: None,
            eta_s: None,
        };
        assert_eq!(line(&p, 80), "resolving m");
        let p = Progress {
            total: Some(0),
            ..p
        };
        assert_eq!(line(&p, 80), "resolving m");
    }
}
