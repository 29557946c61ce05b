//! Lines of JSON on standard output.

use anyhow::{Context, Result};
use serde::Serialize;
use std::io::Write;

/// What failed when standard output takes no more.
pub(crate) const UNWRITTEN: &str = "cannot write to standard output";

/// One event of `--json`, one line each.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The model is on its device.
    Load {
        /// What was asked for.
        model: &'a str,
        /// Its file or folder.
        path: String,
        /// Device name.
        device: &'a str,
        /// Rung of the ladder.
        rung: &'a str,
        /// Milliseconds from the files to a loaded model.
        load_ms: f64,
        /// What was tried before, and why it is not used.
        attempts: Vec<Attempt>,
    },
    /// Bytes are coming in, or going to the device.
    Progress {
        /// What is being done.
        phase: &'a str,
        /// The file or package.
        file: &'a str,
        /// Bytes of this phase done.
        bytes_done: u64,
        /// Bytes of this phase in all, if known.
        bytes_total: Option<u64>,
        /// Bytes per second, if known.
        speed_bps: Option<f64>,
        /// Seconds left, if known.
        eta_s: Option<f64>,
    },
    /// More of the answer.
    Text {
        /// Never broken UTF-8.
        text: &'a str,
    },
    /// The device failed and the answer goes on elsewhere.
    Moved {
        /// What happened.
        why: &'a str,
        /// Where it goes on.
        device: &'a str,
    },
    /// Pictures were made smaller to fit into the context.
    Scaled {
        /// Tokens they would have been.
        from: usize,
        /// Tokens they are.
        to: usize,
    },
    /// The model wants a tool called.
    Call {
        /// Its name.
        name: &'a str,
        /// Its arguments by name.
        arguments: &'a serde_json::Map<String, serde_json::Value>,
    },
    /// The answer is complete. The last line.
    Done {
        /// Ids of the prompt.
        prompt_ids: &'a [u32],
        /// Pictures and sounds encoded for this answer.
        encoded: usize,
        /// Tokens guessed ahead (`--draft`).
        drafted: usize,
        /// Those of them that were right.
        drafts_right: usize,
        /// Ids generated, without the one that ended the answer.
        ids: &'a [u32],
        /// Their text.
        text: &'a str,
        /// Device name.
        device: &'a str,
        /// Rung of the ladder.
        rung: &'a str,
        /// Milliseconds to the first token.
        ttft_ms: f64,
        /// Prompt tokens per second.
        prefill_tps: f64,
        /// Generated tokens per second after the first.
        decode_tps: f64,
        /// `eos`, `stop`, `max_tokens`, `context`, `cancelled`.
        finish: &'a str,
        /// Seed of the draws: the same again gives the same answer.
        seed: u64,
    },
    /// A model is here. The last line of `models fetch`.
    Fetched {
        /// Its name.
        model: &'a str,
        /// File or folder to load.
        path: String,
        /// Bytes on disk.
        bytes: u64,
        /// Where it came from.
        origin: &'a str,
        /// Its licence, if known.
        licence: Option<&'a str>,
    },
    /// It failed. The last line.
    Error {
        /// What went wrong, why, and the fix where it is known.
        message: &'a str,
    },
}

/// One step of the choice of a device.
#[derive(Serialize)]
pub(crate) struct Attempt {
    /// Adapter or processor.
    pub(crate) what: String,
    /// Rung of the ladder.
    pub(crate) rung: &'static str,
    /// Why it is not used; null: it is.
    pub(crate) refused: Option<String>,
}

/// The choice of a device in JSON.
pub(crate) fn attempts(report: &firelight_runtime::Report) -> Vec<Attempt> {
    let one = |a: &firelight_runtime::Attempt| Attempt {
        what: a.what.clone(),
        rung: a.rung.name(),
        refused: a.refused.clone(),
    };
    report.attempts.iter().map(one).collect()
}

/// Writes a value as one line and flushes.
pub(crate) fn print(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .context(UNWRITTEN)
}
