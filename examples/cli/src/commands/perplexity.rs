//! `firelight perplexity`: the mean next-token loss of a model over a text.

use crate::args::{EngineArgs, ModelArgs};
use crate::progress;
use crate::ui::{self, Ui};
use crate::{OK, interrupt, json, load};
use anyhow::{Context, Result};
use firelight_runtime::pipelines::perplexity;
use std::io::Read;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A text file; `-`: standard input
    #[arg(required_unless_present = "ids", conflicts_with = "ids")]
    file: Option<String>,
    /// Token ids instead of a text, with commas between them; nothing is added
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    ids: Vec<u32>,
    /// Tokens of a window; each is predicted from those before it in the window, the first is not
    #[arg(long, value_name = "N", default_value_t = 512)]
    ctx: usize,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"nll":…,"ppl":…,"tokens":…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
The number is a mean over all predicted tokens in nats, and e to its power: lower is better, and only comparable
between models with the same tokenizer.

Examples:
  firelight perplexity --model gemma-3-270m book.txt
  firelight perplexity --model ./model.gguf --ids 1,15043,3186 --exact";

pub(crate) fn run(args: &PerplexityArgs) -> Result<u8> {
    interrupt::install()?;
    let text = args.file.as_deref().map(read).transpose()?;
    let mut ui = Ui::of(args.json);
    let ready = load::ready(args.model.model.as_deref(), &args.engine, &mut ui)?;
    let ids = match &text {
        Some(text) => ready.model.text.encode_text(text)?,
        None => args.ids.clone(),
    };
    let result = pollster::block_on(perplexity::perplexity(
        &ready.model,
        &ids,
        args.ctx,
        &mut |done, total| {
            ui.stepping("predicting", &format!("{done} of {total} tokens"));
        },
    ));
    progress::leave_line();
    let r = result?;
    if args.json {
        json::print(&serde_json::json!({ "nll": r.nll, "ppl": r.ppl, "tokens": r.tokens }))?;
    } else {
        ui::to_stdout(&format!(
            "loss {:.5} nats per token · perplexity {:.4} · {} tokens predicted in windows of {}\n",
            r.nll, r.ppl, r.tokens, args.ctx
        ))?;
    }
    Ok(OK)
}

fn read(file: &str) -> Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input as UTF-8 text")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {file} as UTF-8 text"))
}
