//! `firelight similar`: which texts are closest to a query.

use super::embed::{EmbeddingArgs, embed, embedder};
use super::texts::{Text, TextsArgs};
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{OK, interrupt, json};
use anyhow::Result;
use firelight_runtime::pipelines::embed::{EmbedOptions, Long, nearest};

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimilarArgs {
    /// What to look for
    query: String,
    #[command(flatten)]
    texts: TextsArgs,
    /// How many to show
    #[arg(short = 'k', long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// What to put before the query, where it differs from the texts': a prompt of the model's files, or the text itself
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,
    #[command(flatten)]
    embedding: EmbeddingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"query":…,"matches":[{"similarity":…,"text":…,"origin":…,"index":…},…]}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
The similarity is the cosine between two embeddings: 1 for the same meaning, about 0 for nothing in common.

Examples:
  firelight similar \"how do I get my money back\" --lines faq.txt
  firelight similar \"a sleeping animal\" \"A cat naps.\" \"Shares fell.\" -k 1
  firelight similar \"liability\" --file contract.txt --long chunks --max-tokens 128
  firelight similar --model ./nomic-embed-text-v1.5 --prompt 'search_document: ' --query-prompt 'search_query: ' \"cats\" --lines a.txt";

pub(crate) fn run(args: &SimilarArgs) -> Result<u8> {
    interrupt::install()?;
    let options = args.embedding.options()?;
    let texts = args.texts.read()?;
    let mut ui = Ui::of(args.json);
    let (embedder, _) = embedder(&args.embedding, &args.engine, &mut ui)?;
    let found = embed(&embedder, &texts, &options, &mut ui)?;
    // One vector for the query, whatever becomes of long texts.
    let query_options = EmbedOptions {
        long: match options.long {
            Long::Chunks { overlap } => Long::Mean { overlap },
            other => other,
        },
        prompt: args.query_prompt.clone().or(options.prompt.clone()),
        ..options
    };
    let query = [Text::argument(&args.query)];
    let query = embed(&embedder, &query, &query_options, &mut ui)?.vectors();
    let places: Vec<(usize, usize)> = found.rows.iter().map(|r| (r.text, r.chunk)).collect();
    let vectors = found.vectors();
    let matches = query
        .first()
        .map(|q| nearest(q, &vectors, args.top))
        .unwrap_or_default();
    if args.json {
        let rows = matches.iter().map(|(i, similarity)| {
            let (text, chunk) = places[*i];
            serde_json::json!({
                "similarity": similarity, "text": texts[text].text, "origin": texts[text].origin, "index": text, "chunk": chunk,
            })
        });
        let rows: Vec<_> = rows.collect();
        json::print(&serde_json::json!({ "query": args.query, "matches": rows }))?;
        return Ok(OK);
    }
    let mut shown = String::new();
    for (i, similarity) in matches {
        let (text, chunk) = places[i];
        let origin = texts[text]
            .origin
            .as_ref()
            .map(|o| format!("{o}  "))
            .unwrap_or_default();
        let piece = if chunk > 0 {
            format!(" (piece {})", chunk + 1)
        } else {
            String::new()
        };
        shown.push_str(&format!(
            "{similarity:.4}  {origin}{}{piece}\n",
            texts[text].short(100)
        ));
    }
    ui::to_stdout(&shown)?;
    Ok(OK)
}
