//! `firelight rerank`: passages in the order in which they answer a query, by a cross-encoder.

use super::texts::TextsArgs;
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{OK, interrupt, json, load, progress};
use anyhow::Result;
use firelight_runtime::pipelines::classify::{Classifier, ClassifyOptions};

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RerankArgs {
    /// The question
    query: String,
    #[command(flatten)]
    texts: TextsArgs,
    /// The cross-encoder: a folder, or `hf:OWNER/REPO[@REVISION]`, with a sequence classification head of one label
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// How many to show [default: all]
    #[arg(short = 'k', long, value_name = "N")]
    top: Option<usize>,
    /// Tokens of the longest pair [default: as the model's files say]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Tokens of a batch [default: what suits the device]
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"query":…,"ranking":[{"score":…,"index":…,"text":…,"origin":…,"truncated":…},…]}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
A cross-encoder reads query and passage together: slower than `similar`, and better. Let `similar` find a hundred, and
`rerank` order them. Scores are comparable within one query.

Examples:
  firelight rerank --model ./ms-marco-MiniLM-L6-v2 \"How tall is the tower?\" --lines passages.txt -k 3";

pub(crate) fn run(args: &RerankArgs) -> Result<u8> {
    interrupt::install()?;
    let texts = args.texts.read()?;
    let mut ui = Ui::of(args.json);
    let ready = load::encoder(Some(&args.model), "rerank", &args.engine, &mut ui)?;
    let classifier = Classifier::new(&ready.engine, ready.model)?;
    let options = ClassifyOptions {
        max_tokens: args.max_tokens,
        batch_tokens: args.batch_tokens,
        ..Default::default()
    };
    let ranked =
        pollster::block_on(
            classifier.rerank(&args.query, &texts, &options, &mut |done, total| {
                ui.counting("reading", done, total, "passage");
            }),
        );
    progress::leave_line();
    let mut ranked = ranked?;
    let cut = ranked.iter().filter(|r| r.truncated > 0).count();
    if cut > 0 {
        ui.note(&format!(
            "{} were too long and were cut",
            crate::format::count(cut, "pair")
        ));
    }
    ranked.truncate(args.top.unwrap_or(usize::MAX));
    if args.json {
        let rows = ranked.iter().map(|r| {
            let text = &texts[r.index];
            serde_json::json!({
                "score": r.score, "index": r.index, "text": text.text, "origin": text.origin, "truncated": r.truncated,
            })
        });
        let rows: Vec<_> = rows.collect();
        json::print(&serde_json::json!({ "query": args.query, "ranking": rows }))?;
        return Ok(OK);
    }
    let mut shown = String::new();
    for r in &ranked {
        let text = &texts[r.index];
        let origin = text
            .origin
            .as_ref()
            .map(|o| format!("{o}  "))
            .unwrap_or_default();
        shown.push_str(&format!("{:>8.3}  {origin}{}\n", r.score, text.short(100)));
    }
    ui::to_stdout(&shown)?;
    Ok(OK)
}
