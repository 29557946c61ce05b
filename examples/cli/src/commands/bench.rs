//! `firelight bench`: prompt and generation speed, and what a generated token costs.

use crate::args::{EngineArgs, ModelArgs};
use crate::progress::{self, Progress};
use crate::ui::{self, Ui};
use crate::{OK, format, interrupt, json, load};
use anyhow::{Context, Result};
use firelight_runtime::LoadedModel;
use firelight_runtime::pipelines::bench::{self, BenchOptions, BenchReport};
use firelight_runtime::pipelines::synthetic;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Random weights in the shapes of this config.json, instead of a model: nothing is downloaded
    #[arg(long, value_name = "CONFIG.json", conflicts_with = "model")]
    synthetic: Option<PathBuf>,
    /// Type of the random weights: q4, q8, f16, or any weight type's name (q4_k, bf16, …)
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "q4",
        requires = "synthetic"
    )]
    quant: String,
    /// Prompt tokens
    #[arg(short = 'p', long = "prompt", value_name = "N", default_value_t = 256)]
    prefill: usize,
    /// Generated tokens
    #[arg(short = 'n', long = "gen", value_name = "N", default_value_t = 64)]
    decode: usize,
    /// Runs; medians are reported, and one more comes first that is not counted
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  firelight bench                                        the default model, as llama-bench measures
  firelight bench --model gemma-3-270m -p 512 -n 128 -r 3
  firelight bench --synthetic config.json --quant q4     what would a model of these shapes do here?
  firelight bench --device cpu --threads 1 --json";

pub(crate) fn run(args: &BenchArgs) -> Result<u8> {
    interrupt::install()?;
    let mut ui = Ui::of(args.json);
    let (name, model) = match &args.synthetic {
        Some(config) => synthetic_model(config, args, &mut ui)?,
        None => {
            let ready = load::ready(args.model.model.as_deref(), &args.engine, &mut ui)?;
            (ready.local.name, ready.model)
        }
    };
    let options = BenchOptions {
        prefill: args.prefill,
        decode: args.decode,
        runs: args.runs,
    };
    let result = pollster::block_on(bench::bench(&model, &options, &mut |done, total| {
        let file = format!("{done} of {total}");
        // Not bytes: the numbers are in the name.
        ui.progress(&Progress {
            phase: "run",
            file: &file,
            done: 0,
            total: None,
            speed_bps: None,
            eta_s: None,
        });
    }));
    progress::leave_line();
    let report = result?;
    if args.json {
        let mut value = serde_json::to_value(&report)?;
        value["model"] = name.into();
        value["prompt_tokens"] = args.prefill.into();
        value["generated_tokens"] = args.decode.into();
        value["runs"] = args.runs.into();
        json::print(&value)?;
    } else {
        ui::to_stdout(&shown(&name, args, &report))?;
    }
    Ok(OK)
}

fn synthetic_model(config: &Path, args: &BenchArgs, ui: &mut Ui) -> Result<(String, LoadedModel)> {
    let json =
        std::fs::read(config).with_context(|| format!("cannot read {}", config.display()))?;
    let checkpoint = synthetic::synthetic(&json, &args.quant)
        .with_context(|| format!("cannot make a model of {}", config.display()))?;
    let engine = load::engine(&args.engine)?;
    let name = format!("{} with random {} weights", config.display(), args.quant);
    let loaded = pollster::block_on(engine.load_checkpoint(
        Arc::new(checkpoint),
        &mut |done, total| {
            let phase = "making weights";
            ui.progress(&Progress {
                phase,
                file: "",
                done,
                total: Some(total),
                speed_bps: None,
                eta_s: None,
            });
        },
    ));
    progress::leave_line();
    let model = loaded.with_context(|| format!("cannot make a model of {}", config.display()))?;
    let report = engine.report();
    ui.note(&format!(
        "{name} on {}{}",
        report.device,
        load::why(&report, &args.engine)
    ));
    Ok((name, model))
}

fn shown(name: &str, args: &BenchArgs, r: &BenchReport) -> String {
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let rows = [
        row("model", name.to_owned()),
        row("device", format!("{} (rung {})", r.device, r.rung)),
        row(
            &format!("prompt, {} tokens", args.prefill),
            format::rate(r.prefill_tps),
        ),
        row(
            &format!("generation, {} tokens", args.decode),
            format::rate(r.decode_tps),
        ),
        row(
            "per generated token",
            format!(
                "{} dispatches in {} passes and {} submits · {} bytes read back · {} buffers and {} bind groups created · \
                 {:.0} µs to encode",
                r.dispatches,
                r.passes,
                r.submits,
                r.readback_bytes,
                r.buffers_created,
                r.bind_groups_created,
                r.encode_us
            ),
        ),
        row("memory", format::bytes(r.memory_bytes)),
    ];
    format::table(&rows)
}
