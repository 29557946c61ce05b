//! `firelight quantize`: a model as a GGUF file in other types.

use crate::ui::{self, Ui};
use crate::{OK, format, interrupt, json, load, progress};
use anyhow::{Context, Result};
use firelight_runtime::Dtypes;
use firelight_runtime::pipelines::quantize;
use std::path::PathBuf;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuantizeArgs {
    /// A model: a name of `firelight models list`, a GGUF file, or a folder in the Hugging Face layout
    model: String,
    /// The file to write
    target: PathBuf,
    /// Type of the matrices: q8_0, q6_k, q5_k, q4_k, q4_1, f16 …, also by component: embed=q8_0,default=q4_k
    #[arg(long = "type", value_name = "TYPE")]
    dtype: Dtypes,
    /// One JSON object: {"tensors":…,"converted":…,"bytes_before":…,"bytes_now":…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Vectors stay as they are. A matrix whose rows do not fit a type's blocks gets the nearest type that fits, and the head keeps
more bits (q6_k) unless the type names it. llama.cpp reads the file, too. Starting from a file that is quantised already loses
more than starting from f16.

Examples:
  firelight quantize model-f16.gguf model-q4_k.gguf --type q4_k
  firelight quantize ./Qwen2.5-0.5B-Instruct qwen.gguf --type q8_0
  firelight quantize model-f16.gguf small.gguf --type embed=q8_0,default=q4_1";

pub(crate) fn run(args: &QuantizeArgs) -> Result<u8> {
    interrupt::install()?;
    let mut ui = Ui::of(args.json);
    let resolver = load::resolver()?;
    let local = load::files(&resolver, &args.model, &mut ui)?;
    let cancel = interrupt::listen();
    let shown = args.target.display().to_string();
    let written = quantize::quantize(
        &local.root,
        &args.target,
        args.dtype,
        &mut |done, total| {
            ui.progress(&progress::Progress {
                phase: "converting",
                file: &shown,
                done,
                total: Some(total),
                speed_bps: None,
                eta_s: None,
            });
        },
        &cancel,
    );
    progress::leave_line();
    let w = written.with_context(|| format!("cannot write {shown}"))?;
    if args.json {
        json::print(&serde_json::json!({
            "tensors": w.tensors, "converted": w.converted, "bytes_before": w.bytes_before, "bytes_now": w.bytes_now,
        }))?;
    } else {
        ui::to_stdout(&format!(
            "{shown}: {} of {} tensors converted, {} instead of {}\n",
            w.converted,
            w.tensors,
            format::bytes(w.bytes_now),
            format::bytes(w.bytes_before)
        ))?;
    }
    Ok(OK)
}
