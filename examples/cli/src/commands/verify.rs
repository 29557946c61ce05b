//! `firelight verify`: a checkpoint against what its reference implementation computed.

use crate::args::EngineArgs;
use crate::{FAILED, OK, format, interrupt, json, load, ui};
use anyhow::{Context, Result};
use firelight_runtime::pipelines::verify::{self, Check};
use std::path::PathBuf;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// The folder of golden.json, golden.safetensors and the inputs, usually the checkpoint's own
    dir: PathBuf,
    /// The checkpoint's folder, where it is not beside the goldens
    #[arg(short, long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Write what was computed to this safetensors file, under the goldens' names
    #[arg(long, value_name = "OUT.safetensors")]
    dump: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Every case is computed from its raw inputs; goldens are compared with, never fed in.
Exit code 0: all within the tolerance; 1: something is beyond it.

Examples:
  firelight verify crates/runtime/tests/data/llama
  firelight verify crates/runtime/tests/data/llama --device gpu --rung gpu-f32
  firelight verify samples --model model
  firelight verify DIR --dump computed.safetensors";

const NAME_WIDTH: usize = 28;

pub(crate) fn run(args: &VerifyArgs) -> Result<u8> {
    interrupt::install()?;
    // What a damaged folder lacks is told before a device is opened.
    for file in ["golden.json", "golden.safetensors"] {
        let path = args.dir.join(file);
        anyhow::ensure!(
            path.is_file(),
            "{} is missing: verify needs a checkpoint's folder with golden.json and golden.safetensors",
            path.display()
        );
    }
    let engine = load::engine(&args.engine)?;
    let mut written = Ok(());
    let mut first = true;
    let mut on_check = |check: &Check| {
        if args.json || written.is_err() {
            return;
        }
        let head = if std::mem::take(&mut first) {
            row("tensor", "elements", "max diff", "")
        } else {
            String::new()
        };
        written = ui::to_stdout(&(head + &shown(check)));
    };
    let model = args.model.as_ref().unwrap_or(&args.dir);
    let report = verify::verify_model(&engine, &args.dir, model, &mut on_check);
    let report = pollster::block_on(report)
        .with_context(|| format!("cannot verify {}", args.dir.display()))?;
    written?;
    if let Some(path) = &args.dump {
        report
            .write_dump(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let passed = report.passed();
    if args.json {
        let mut value = serde_json::to_value(&report)?;
        value["passed"] = passed.into();
        json::print(&value)?;
    } else {
        let failed = report.checks.iter().filter(|c| !c.passed).count();
        let verdict = match failed {
            _ if report.checks.is_empty() => "FAILED: there was nothing to compare".to_owned(),
            0 => format!("passed: {}", format::count(report.checks.len(), "check")),
            n => format!(
                "FAILED: {n} of {}",
                format::count(report.checks.len(), "check")
            ),
        };
        for skipped in &report.skipped {
            let (case, why) = (&skipped.case, &skipped.why);
            ui::to_stdout(&format!(
                "not run: case `{}`: {}\n",
                format::harmless(case),
                format::harmless(why)
            ))?;
        }
        let skipped = match report.skipped.len() {
            0 => String::new(),
            n => format!(", {} not run", format::count(n, "case")),
        };
        ui::to_stdout(&format!(
            "{verdict}{skipped} · {} on {} (rung {}), tolerance {}\n",
            report.family, report.device, report.rung, report.atol
        ))?;
        if !passed && report.cache != "f32" {
            ui::to_stdout(&format!(
                "keys and values are kept in {} here; whether it is that, `--kv f32` tells, which is held to 0.001\n",
                report.cache
            ))?;
        }
    }
    Ok(if passed { OK } else { FAILED })
}

fn row(name: &str, elements: &str, max_abs: &str, verdict: &str) -> String {
    format!(
        "{}\n",
        format!("{name:<NAME_WIDTH$} {elements:>10} {max_abs:>10}  {verdict}").trim_end()
    )
}

fn shown(check: &Check) -> String {
    let verdict = if check.passed { "ok" } else { "FAILED" };
    let mut text = row(
        &check.name,
        &check.elements.to_string(),
        &format!("{:.2e}", check.max_abs),
        verdict,
    );
    if let Some(detail) = &check.detail {
        text.push_str(&format!("    {}\n", format::harmless(detail)));
    }
    text
}
