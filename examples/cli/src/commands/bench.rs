//! `firelight bench`: prompt and generation speed, and what a generated token costs.

use crate::args::{EngineArgs, ModelArgs};
use crate::progress::{self, Progress};
use crate::ui::{self, Ui};
use crate::{OK, format, interrupt, json, load};
use anyhow::{Context, Result};
use firelight_runtime::LoadedModel;
use firelight_runtime::pipelines::bench::{self, BenchOptions, BenchReport};
use firelight_runtime::pipelines::profile::{self, ProfileOptions, ProfileReport};
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
    /// Also say where the time of a prompt of at most 256 tokens and of a token goes: per kernel, against what the device's memory
    /// and arithmetic give at best
    #[arg(long)]
    profile: bool,
    /// Write every call of the profile to a file for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE.json", requires = "profile")]
    trace: Option<PathBuf>,
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
  firelight bench --profile --trace trace.json
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
        ui.stepping("run", &format!("{done} of {total}"));
    }));
    progress::leave_line();
    let report = result?;
    let profile = match args.profile {
        true => Some(profiled(&model, args)?),
        false => None,
    };
    if args.json {
        let mut value = serde_json::to_value(&report)?;
        value["model"] = name.into();
        value["prompt_tokens"] = args.prefill.into();
        value["generated_tokens"] = args.decode.into();
        value["runs"] = args.runs.into();
        if let Some(profile) = &profile {
            value["profile"] = serde_json::to_value(profile)?;
        }
        json::print(&value)?;
    } else {
        ui::to_stdout(&shown(&name, args, &report))?;
        if let Some(profile) = &profile {
            ui::to_stdout(&profile_shown(profile))?;
        }
    }
    Ok(OK)
}

fn profiled(model: &LoadedModel, args: &BenchArgs) -> Result<ProfileReport> {
    let options = ProfileOptions {
        prefill: args.prefill.min(firelight_runtime::CHUNK),
        runs: args.runs,
    };
    let report = pollster::block_on(profile::profile(model, &options))?;
    if let Some(path) = &args.trace {
        let trace = serde_json::to_vec(&report.chrome_trace())?;
        std::fs::write(path, trace).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}

fn profile_shown(p: &ProfileReport) -> String {
    let giga =
        |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |r| format!("{:.1}", r * 1e-9));
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let mut text = format!(
        "\nAt best here (measured): memory {:.1} GB/s, f32 product {:.0} GFLOP/s\n",
        p.bandwidth * 1e-9,
        p.flops * 1e-9
    );
    for step in &p.steps {
        let title = format!(
            "\n{} ({}): {:.2} ms in {}\n",
            step.step,
            format::count(step.tokens, "token"),
            step.seconds * 1e3,
            format::count(step.calls.len(), "call")
        );
        text.push_str(&title);
        let head = [
            "kernel",
            "calls",
            "ms",
            "share",
            "GB/s",
            "GFLOP/s",
            "of the nearer ceiling",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for k in &step.kernels {
            rows.push(vec![
                k.kernel.clone(),
                k.calls.to_string(),
                format!("{:.3}", k.seconds * 1e3),
                percent(k.share),
                giga(k.bytes_per_s),
                giga(k.flops_per_s),
                k.of_ceiling.map_or_else(|| "–".to_owned(), percent),
            ]);
        }
        text.push_str(&format::table(&rows));
    }
    text
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
