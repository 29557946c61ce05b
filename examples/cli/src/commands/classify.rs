//! `firelight classify`: what a text is, by a fine-tuned model or by labels of one's own.

use super::embed::{EmbeddingArgs, embedder};
use super::texts::{Text, TextsArgs};
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{OK, Usage, interrupt, json, load, progress};
use anyhow::Result;
use firelight_runtime::pipelines::classify::{Classified, Classifier, ClassifyOptions, zero_shot};

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ClassifyArgs {
    #[command(flatten)]
    texts: TextsArgs,
    /// Labels of your own, with commas between them: the one whose embedding is closest fits best; no fine-tuned model is needed
    #[arg(short = 'L', long, value_name = "A,B,C", value_delimiter = ',')]
    labels: Vec<String>,
    /// How a label is put into words before it is embedded; {} is the label
    #[arg(long, value_name = "TEXT", default_value = "{}", requires = "labels")]
    template: String,
    /// How many labels to show
    #[arg(short = 'k', long, value_name = "N", default_value_t = 3)]
    top: usize,
    #[command(flatten)]
    embedding: EmbeddingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"model":…,"results":[{"text":…,"labels":[{"label":…,"score":…},…],"truncated":…},…]}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
With --model a fine-tuned classifier (…ForSequenceClassification) gives probabilities of its own labels.
With --labels any embedding model gives cosines: their order means something, their size does not.

Examples:
  firelight classify --labels sport,politics,cooking \"Whisk the eggs.\"
  firelight classify --labels refund,delivery,praise --template \"A message about {}.\" --lines mails.txt
  firelight classify --model ./distilbert-sst2 \"What a lovely day.\"";

pub(crate) fn run(args: &ClassifyArgs) -> Result<u8> {
    interrupt::install()?;
    if args.labels.is_empty() && args.embedding.model.is_none() {
        return Err(Usage(
            "give --labels A,B,C to choose among labels of your own, or --model with a fine-tuned classifier".into(),
        )
        .into());
    }
    let options = args.embedding.options()?;
    let texts = args.texts.read()?;
    let mut ui = Ui::of(args.json);
    let (results, name) = if args.labels.is_empty() {
        let ready = load::encoder(
            args.embedding.model.as_deref(),
            "embed",
            &args.engine,
            &mut ui,
        )?;
        let classifier = Classifier::new(&ready.engine, ready.model)?;
        let options = ClassifyOptions {
            max_tokens: options.max_tokens,
            batch_tokens: options.batch_tokens,
            ..Default::default()
        };
        let results =
            pollster::block_on(classifier.classify(&texts, &options, &mut |done, total| {
                ui.counting("classifying", done, total, "text");
            }));
        (results, ready.name)
    } else {
        let (embedder, name) = embedder(&args.embedding, &args.engine, &mut ui)?;
        let mut progress = |done, total| ui.counting("classifying", done, total, "text");
        let results = pollster::block_on(zero_shot(
            &embedder,
            &texts,
            &args.labels,
            &args.template,
            &options,
            &mut progress,
        ));
        (results, name)
    };
    progress::leave_line();
    let results = results?;
    let cut = results.iter().filter(|r| r.truncated > 0).count();
    if cut > 0 {
        ui.note(&format!(
            "{} were too long and were cut",
            crate::format::count(cut, "text")
        ));
    }
    show(args, &texts, &results, &name)?;
    Ok(OK)
}

fn show(args: &ClassifyArgs, texts: &[Text], results: &[Classified], name: &str) -> Result<()> {
    if args.json {
        let rows = texts.iter().zip(results).map(|(text, result)| {
            serde_json::json!({
                "text": text.text, "origin": text.origin, "labels": result.labels, "truncated": result.truncated,
            })
        });
        let rows: Vec<_> = rows.collect();
        return json::print(&serde_json::json!({ "model": name, "results": rows }));
    }
    let mut shown = String::new();
    for (text, result) in texts.iter().zip(results) {
        let labels = result.labels.iter().take(args.top);
        let labels: Vec<String> = labels
            .map(|l| format!("{} {:.3}", l.label, l.score))
            .collect();
        shown.push_str(&format!("{}  |  {}\n", labels.join("  "), text.short(80)));
    }
    ui::to_stdout(&shown)
}
