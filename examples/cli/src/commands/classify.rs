//! `firelight classify`: what a text or a picture is, by a fine-tuned model or by labels of one's own.

use super::embed::{EmbeddingArgs, embedder, see};
use super::texts::{Text, TextsArgs};
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{FAILED, OK, Usage, interrupt, json, load, pictures, progress};
use anyhow::Result;
use firelight_runtime::pipelines::classify::{Classified, Classifier, ClassifyOptions, zero_shot};
use firelight_runtime::pipelines::pictures::PictureOptions;
use std::path::PathBuf;

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
    /// [default: the label itself for texts, \"This is a photo of {}.\" for pictures]
    #[arg(long, value_name = "TEXT", requires = "labels")]
    template: Option<String>,
    /// How many labels to show
    #[arg(short = 'k', long, value_name = "N", default_value_t = 3)]
    top: usize,
    #[command(flatten)]
    embedding: EmbeddingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"model":…,"results":[{"text":…,"labels":[{"label":…,"score":…},…],"truncated":…},…]};
    /// pictures as {"path":…,"labels":[…]} or {"path":…,"error":…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
With --model a fine-tuned classifier (…ForSequenceClassification) gives probabilities of its own labels.
With --labels any embedding model gives cosines: their order means something, their size does not.
Arguments that are pictures, or folders of them, are looked at, which takes a model of texts and pictures: CLIP shares the
probability among the labels, SigLIP gives each label its own.

Examples:
  firelight classify --labels sport,politics,cooking \"Whisk the eggs.\"
  firelight classify --labels refund,delivery,praise --template \"A message about {}.\" --lines mails.txt
  firelight classify --labels \"a cat,a dog,a bicycle\" photos/ --model hf:google/siglip-base-patch16-224
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
    let named = &args.texts;
    let only_arguments = named.lines.is_empty() && named.file.is_empty();
    let meant = !named.texts.is_empty() && named.texts.iter().all(|t| pictures::meant(t));
    if only_arguments && meant && !args.labels.is_empty() {
        return look(args);
    }
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
            args.template.as_deref().unwrap_or("{}"),
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

/// The same for pictures.
fn look(args: &ClassifyArgs) -> Result<u8> {
    if args.embedding.model.is_none() {
        return Err(Usage(pictures::WHICH.into()).into());
    }
    let paths: Vec<PathBuf> = args.texts.texts.iter().map(PathBuf::from).collect();
    let paths = pictures::files(&paths)?;
    let mut ui = Ui::of(args.json);
    let (embedder, name) = embedder(&args.embedding, &args.engine, &mut ui)?;
    let template = args.template.as_deref().unwrap_or("This is a photo of {}.");
    embedder.model().sees()?;
    let labels = pollster::block_on(embedder.embed_labels(&args.labels, template))?;
    let seen = see(&embedder, &paths, &PictureOptions::default(), &mut ui)?;
    let (mut rows, mut shown) = (Vec::new(), String::new());
    for (path, vector) in &seen {
        match vector {
            Ok(vector) => {
                let ranked = embedder.rank_labels(vector, &args.labels, &labels)?;
                let best = ranked.iter().take(args.top);
                let best: Vec<String> = best
                    .map(|l| format!("{} {:.3}", l.label, l.score))
                    .collect();
                let path = crate::format::harmless(path);
                shown.push_str(&format!("{}  |  {path}\n", best.join("  ")));
                rows.push(serde_json::json!({ "path": path, "labels": ranked }));
            }
            Err(why) => rows.push(serde_json::json!({ "path": path, "error": why })),
        }
    }
    match args.json {
        true => json::print(&serde_json::json!({ "model": name, "results": rows }))?,
        false => ui::to_stdout(&shown)?,
    }
    let failed = seen.iter().any(|(_, vector)| vector.is_err());
    Ok(if failed { FAILED } else { OK })
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
