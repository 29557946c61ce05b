//! `firelight describe`: what is in pictures.

use crate::args::{EngineArgs, ModelArgs};
use crate::ui::{self, Ui};
use crate::{FAILED, INTERRUPTED, OK, format, interrupt, json, load, pictures, spark};
use anyhow::{Context, Result};
use firelight_runtime::{Event, Finish, GenerateOptions, Session};
use std::path::PathBuf;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Pictures: PNG, JPEG, WebP, GIF, BMP; a folder stands for those in it
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What is asked about each
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "Describe what you see."
    )]
    question: String,
    #[command(flatten)]
    model: ModelArgs,
    /// The tower of a GGUF model, if it is not the mmproj-….gguf beside it
    #[arg(long, value_name = "FILE", requires = "model")]
    mmproj: Option<PathBuf>,
    /// Tokens of a description at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object per picture and line: {\"path\":…,\"text\":…,\"ids\":[…],…}, or {\"path\":…,\"error\":…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Without --model the model that is in the program looks: drawn shapes and short printed words only, no photographs.
A picture that cannot be used is told and the others are described; the exit code is then 1.

Examples:
  firelight describe drawing.png
  firelight describe *.png --json | jq -r .text
  firelight describe sign.png --question \"What does it say?\"
  firelight describe photos/ --model hf:HuggingFaceTB/SmolVLM-256M-Instruct";

pub(crate) fn run(args: &DescribeArgs) -> Result<u8> {
    interrupt::install()?;
    let mut ui = Ui::of(args.json);
    let paths = pictures::files(&args.paths)?;
    let model = args.model.model.as_deref();
    if model.is_none() {
        ui.note(spark::NOTE);
    }
    let beside = load::Beside {
        mmproj: args.mmproj.as_deref(),
        ..Default::default()
    };
    let ready = load::ready_with(model.or(Some(spark::NAME)), &args.engine, &beside, &mut ui)?;
    let mut session = Session::new(&ready.engine, &ready.model)?;
    let cancel = interrupt::listen();
    let (mut failed, many) = (false, paths.len() > 1);
    for (i, path) in paths.iter().enumerate() {
        if many {
            ui.counting("describing", i, paths.len(), "picture");
        }
        let shown = path.display().to_string();
        let medium = match pictures::open(path) {
            Ok(medium) => medium,
            Err(e) => {
                failed = true;
                let message = ui::chain(&e);
                match args.json {
                    true => json::print(&serde_json::json!({ "path": shown, "error": message }))?,
                    false => ui::to_stderr(&format!("error: {message}")),
                }
                continue;
            }
        };
        // The most likely token each time: a description is no place for chance.
        let options = GenerateOptions {
            max_tokens: args.max_tokens,
            media: vec![medium],
            ..GenerateOptions::default()
        };
        let messages = [pictures::question(args.question.clone(), 1)];
        let mut notes = Vec::new();
        let mut on_event = |event| match event {
            Event::Scaled { from, to } => notes.push(format!(
                "{shown}: made smaller to fit into the context, {to} tokens instead of {from}"
            )),
            Event::Moved { why, device } => {
                notes.push(format!("{why}; the answer goes on, on {device}"))
            }
            Event::Token(_) | Event::Text(_) | Event::Call(_) => {}
        };
        let answer = pollster::block_on(session.chat(&messages, &options, &cancel, &mut on_event))
            .with_context(|| format!("cannot describe {}", path.display()))?;
        for note in notes {
            ui.note(&note);
        }
        if answer.finish == Finish::Cancelled {
            return Ok(INTERRUPTED);
        }
        let text = answer.text.trim();
        match args.json {
            true => json::print(&serde_json::json!({
                "path": shown, "question": args.question, "text": text, "prompt_ids": answer.prompt_ids, "ids": answer.ids,
                "finish": answer.finish.name(), "model": ready.local.name, "device": ready.engine.report().device,
                "ttft_ms": answer.ttft.as_secs_f64() * 1e3,
            }))?,
            false if many => ui::to_stdout(&format!("{shown}: {}\n", format::harmless(text)))?,
            false => ui::to_stdout(&format!("{}\n", format::harmless(text)))?,
        }
    }
    Ok(if failed { FAILED } else { OK })
}
