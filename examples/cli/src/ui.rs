//! What is shown to whom: answers on standard output, everything else on standard error, or JSON lines.

use crate::json::{self, Event};
use crate::progress::{self, Bar, Progress};
use anyhow::{Context, Result};
use firelight_runtime::source::ProgressEvent;
use std::io::Write;

/// What this run shows beside its result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Notes and progress on standard error.
    Notes,
    /// Nothing.
    Nothing,
    /// Events as JSON lines on standard output.
    Events,
}

/// See the module's head.
pub(crate) struct Ui {
    show: Show,
    bar: Bar,
}

impl Ui {
    /// A user interface that shows this much.
    pub(crate) fn new(show: Show) -> Self {
        Ui {
            show,
            bar: Bar::new(),
        }
    }

    /// Notes for people, nothing beside the result for programs.
    pub(crate) fn of(json: bool) -> Self {
        Ui::new(if json { Show::Nothing } else { Show::Notes })
    }

    /// True if standard output is for events.
    pub(crate) fn events(&self) -> bool {
        self.show == Show::Events
    }

    /// A line for people.
    pub(crate) fn note(&self, text: &str) {
        if self.show == Show::Notes {
            to_stderr(text);
        }
    }

    /// An event for programs.
    pub(crate) fn event(&self, event: &Event<'_>) -> Result<()> {
        if self.show == Show::Events {
            json::print(event)
        } else {
            Ok(())
        }
    }

    /// Progress of a download or check.
    pub(crate) fn fetching(&mut self, e: &ProgressEvent) {
        self.progress(&Progress {
            phase: e.phase.label(),
            file: &e.file,
            done: e.bytes_done,
            total: e.bytes_total,
            speed_bps: e.speed_bps,
            eta_s: e.eta_s,
        });
    }

    /// Progress of something that is counted: `embedding 128 of 4000 texts`.
    pub(crate) fn counting(&mut self, phase: &str, done: usize, total: usize, what: &str) {
        self.stepping(
            phase,
            &format!("{done} of {}", crate::format::count(total, what)),
        );
    }

    /// Progress of what is not counted in bytes: how far it is stands in `step`.
    pub(crate) fn stepping(&mut self, phase: &str, step: &str) {
        self.progress(&Progress {
            phase,
            file: step,
            done: 0,
            total: None,
            speed_bps: None,
            eta_s: None,
        });
    }

    /// Progress of anything.
    pub(crate) fn progress(&mut self, p: &Progress<'_>) {
        match self.show {
            Show::Notes => self.bar.show(p),
            Show::Nothing => {}
            Show::Events => {
                // Whoever reads will miss the result too, and that is told then.
                let _ = json::print(&Event::Progress {
                    phase: p.phase,
                    file: p.file,
                    bytes_done: p.done,
                    bytes_total: p.total,
                    speed_bps: p.speed_bps,
                    eta_s: p.eta_s,
                });
            }
        }
    }
}

/// A line on standard error, the progress line out of the way.
pub(crate) fn to_stderr(text: &str) {
    progress::leave_line();
    // Nobody is left to be told if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Text on standard output.
pub(crate) fn to_stdout(text: &str) -> Result<()> {
    progress::leave_line();
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context(json::UNWRITTEN)
}

/// An error with its causes; causes that an outer message already tells are left out.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    text
}

/// True if what failed was writing to a reader who went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = || Err::<(), _>(std::io::Error::other("disk on fire"));
        let error = inner().context("cannot write x").unwrap_err();
        assert_eq!(chain(&error), "cannot write x\n  because: disk on fire");
        let error = inner().context("cannot write x: disk on fire").unwrap_err();
        assert_eq!(chain(&error), "cannot write x: disk on fire");
    }
}
