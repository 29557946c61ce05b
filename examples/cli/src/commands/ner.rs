//! `firelight ner`: names in a text, and where they stand.

use super::texts::TextsArgs;
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{OK, interrupt, json, load, progress};
use anyhow::Result;
use firelight_runtime::pipelines::ner::{Ner, NerOptions};

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NerArgs {
    #[command(flatten)]
    texts: TextsArgs,
    /// The tagger: a folder, or `hf:OWNER/REPO[@REVISION]`, with a token classification head
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// Only entities of which the model is at least this sure, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_score: f32,
    /// Tokens of a batch [default: what suits the device]
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"results":[{"text":…,"entities":[{"label":…,"score":…,"text":…,"bytes":{…},"chars":{…}},…]},…]}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Entities are given with their place in the text as it was typed: first character and one past the last. A text longer
than the model's context is read in overlapping windows.

Examples:
  firelight ner --model ./bert-base-NER \"Ada Lovelace lived in London.\"
  firelight ner --model ./bert-base-NER --file report.txt --json";

pub(crate) fn run(args: &NerArgs) -> Result<u8> {
    interrupt::install()?;
    let texts = args.texts.read()?;
    let mut ui = Ui::of(args.json);
    let ready = load::encoder(Some(&args.model), "ner", &args.engine, &mut ui)?;
    let ner = Ner::new(&ready.engine, ready.model)?;
    let options = NerOptions {
        max_tokens: None,
        batch_tokens: args.batch_tokens,
        ..Default::default()
    };
    let found = pollster::block_on(ner.entities(&texts, &options, &mut |done, total| {
        ui.counting("reading", done, total, "window");
    }));
    progress::leave_line();
    let mut found = found?;
    for entities in &mut found {
        entities.retain(|e| e.score >= args.min_score);
    }
    if args.json {
        let rows = texts.iter().zip(&found).map(|(text, entities)| {
            serde_json::json!({ "text": text.text, "origin": text.origin, "entities": entities })
        });
        let rows: Vec<_> = rows.collect();
        json::print(&serde_json::json!({ "results": rows }))?;
        return Ok(OK);
    }
    let mut shown = String::new();
    for (text, entities) in texts.iter().zip(&found) {
        if texts.len() > 1 {
            shown.push_str(&format!("{}\n", text.short(100)));
        }
        for e in entities {
            let name = crate::format::harmless(&e.text);
            shown.push_str(&format!(
                "{:<8} {:.3}  {}..{}  {name}\n",
                e.label, e.score, e.chars.start, e.chars.end
            ));
        }
    }
    ui::to_stdout(&shown)?;
    Ok(OK)
}
