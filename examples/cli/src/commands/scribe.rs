//! `firelight scribe`: a dictation to a structured note.

use super::sound::{self, SoundArgs};
use crate::args::EngineArgs;
use crate::progress::{self, Progress};
use crate::ui::{self, Ui};
use crate::{OK, Usage, interrupt, load};
use anyhow::{Context, Result};
use firelight_runtime::pipelines::scribe;
use firelight_runtime::pipelines::transcribe::{Event, Options, Transcriber};
use firelight_runtime::{GenerateOptions, SampleSettings, Session};
use std::path::PathBuf;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScribeArgs {
    /// A recording: WAV, FLAC, MP3, Ogg Vorbis, AAC/M4A, Ogg or WebM Opus; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The note is JSON that is valid under the JSON Schema in this file [default: title, summary, points]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// What the note is for, in a sentence
    #[arg(long, value_name = "TEXT", default_value = "")]
    instruction: String,
    /// The language model that writes the note [default: the first chat model of the list]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The speech model [default: the first model of the list that transcribes]
    #[arg(long, value_name = "MODEL")]
    speech_model: Option<String>,
    /// Code of the language: en, de, fr, … [default: the model decides]
    #[arg(short, long, value_name = "CODE")]
    language: Option<String>,
    /// Tokens of the note at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 600)]
    max_tokens: usize,
    #[command(flatten)]
    sound: SoundArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

const EXAMPLES: &str = "\
One JSON object: {\"note\":…,\"sources\":[{\"field\":\"/title\",\"segment\":0,\"start\":…,\"end\":…,\"share\":…},…],\"transcript\":…}.
The note is valid under the schema, or there is an error; nothing is sent anywhere.

Examples:
  firelight scribe visit.m4a
  firelight scribe visit.m4a --schema visit.json --model ./Qwen3-4B > visit-note.json";

pub(crate) fn run(args: &ScribeArgs) -> Result<u8> {
    interrupt::install()?;
    let schema = match &args.schema {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| path.display().to_string())?;
            serde_json::from_slice(&text)
                .map_err(|e| Usage(format!("{} is no JSON: {e}", path.display())))?
        }
        None => scribe::default_schema(),
    };
    let mut ui = Ui::of(false);
    let bytes = sound::bytes(&args.file)?;
    let ready = load::speech(args.speech_model.as_deref(), &args.engine, &mut ui)?;
    let options = Options {
        language: args.language.clone(),
        ..Options::default()
    };
    let mut transcriber = Transcriber::new(&ready.engine, ready.model, options)?;
    let cancel = interrupt::listen();
    let name = args.file.display().to_string();
    let mut tell = |event: Event| {
        if let Event::Progress(done) = event {
            let file = format!("{name} · {}", crate::format::clock(done));
            ui.progress(&Progress {
                phase: "transcribing",
                file: &file,
                done: 0,
                total: None,
                speed_bps: None,
                eta_s: None,
            });
        }
    };
    sound::stream(&bytes, transcriber.rate(), &args.sound, |samples, _| {
        Ok(pollster::block_on(
            transcriber.push(samples, &cancel, &mut tell),
        )?)
    })?;
    let transcript = pollster::block_on(transcriber.finish(&cancel, &mut tell))?;
    progress::leave_line();
    // One model at a time: the second has the memory of the first.
    drop(transcriber);
    let ready = load::ready(args.model.as_deref(), &args.engine, &mut ui)?;
    let mut session = Session::new(&ready.engine, &ready.model)?;
    let generate = GenerateOptions {
        sampling: SampleSettings::default(),
        max_tokens: args.max_tokens,
        ..GenerateOptions::default()
    };
    let note = pollster::block_on(scribe::write(
        &mut session,
        transcript,
        &schema,
        &args.instruction,
        &generate,
        &cancel,
        &mut |_| (),
    ))?;
    ui::to_stdout(&format!("{}\n", serde_json::to_string_pretty(&note)?))?;
    Ok(OK)
}
