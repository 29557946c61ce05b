//! `firelight embed`: texts and pictures to vectors.

use super::texts::{Text, TextsArgs};
use crate::args::EngineArgs;
use crate::progress;
use crate::ui::{self, Ui};
use crate::{FAILED, OK, Usage, interrupt, json, load, npy, pictures};
use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, Embeddings, Long};
use firelight_runtime::pipelines::pictures::PictureOptions;
use firelight_runtime::sentence::Pooling;
use std::path::PathBuf;
use std::time::Instant;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    texts: TextsArgs,
    /// Pictures to embed beside texts or instead of them, with a model that puts both into one space (CLIP, SigLIP); a folder
    /// stands for the pictures in it
    #[arg(short, long, value_name = "PATH", num_args = 1..)]
    image: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) embedding: EmbeddingArgs,
    /// Write the vectors to this file: NAME.npy for NumPy (f32, a row per vector), NAME.json
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"model":…,"dims":…,"ms":…,"embeddings":[{"text":0,"chunk":0,"tokens":…,"truncated":…,"vector":[…]},…]},
    /// pictures as {"image":PATH,"vector":[…]} or {"image":PATH,"error":…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
The model's own files say how tokens become one vector, how long a text may be and whether vectors have length 1.
Texts that are too long are cut unless --long says otherwise, and how many were cut is told.

Examples:
  firelight embed \"A cat sleeps.\" \"Two dogs play.\"
  firelight embed --lines notes.txt --out notes.npy
  firelight embed --file book.txt --long chunks --overlap 32 --json
  cat notes.txt | firelight embed --json | jq '.embeddings[0].vector'
  firelight embed --image cat.jpg dog.png --model hf:google/siglip-base-patch16-224 --out pictures.npy
  firelight embed --model ./nomic-embed-text-v1.5 --prompt 'search_query: ' \"What is a cat?\"";

/// How texts become vectors; also for `similar` and `classify --labels`.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Embedding")]
pub(crate) struct EmbeddingArgs {
    /// A name of `firelight models list`, a model's folder, or `hf:OWNER/REPO[@REVISION]`
    /// [default: the first embedding model of the list]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// How tokens become one vector [default: as the model's files say]
    #[arg(long, value_name = "HOW", value_parser = PossibleValuesParser::new(Pooling::ALL.map(|p| p.0)))]
    pub(crate) pooling: Option<String>,
    /// Scale vectors to length 1: yes or no [default: as the model's files say]
    #[arg(long, value_name = "YES", value_parser = PossibleValuesParser::new(["yes", "no"]))]
    pub(crate) normalize: Option<String>,
    /// Tokens of the longest text [default: as the model's files say]
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Longer texts: `truncate` cuts them, `mean` embeds pieces and averages, `chunks` gives a vector per piece, `refuse` fails
    #[arg(long, value_name = "HOW", default_value = "truncate",
          value_parser = PossibleValuesParser::new(["truncate", "mean", "chunks", "refuse"]))]
    pub(crate) long: String,
    /// Tokens that two neighbouring pieces share
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) overlap: usize,
    /// What to put before every text: the name of one of the model's prompts, or the text itself
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Tokens of a batch [default: what suits the device]
    #[arg(long, value_name = "N")]
    pub(crate) batch_tokens: Option<usize>,
}

impl EmbeddingArgs {
    /// A model, and all else as its files say.
    pub(crate) fn of(model: String) -> Self {
        EmbeddingArgs {
            model: Some(model),
            pooling: None,
            normalize: None,
            max_tokens: None,
            long: "truncate".to_owned(),
            overlap: 0,
            prompt: None,
            batch_tokens: None,
        }
    }

    /// The options of the pipeline.
    pub(crate) fn options(&self) -> Result<EmbedOptions, Usage> {
        let overlap = self.overlap;
        let long = match self.long.as_str() {
            "mean" => Long::Mean { overlap },
            "chunks" => Long::Chunks { overlap },
            _ if overlap > 0 => {
                return Err(Usage("--overlap goes with --long mean or chunks".into()));
            }
            "refuse" => Long::Refuse,
            _ => Long::Truncate,
        };
        Ok(EmbedOptions {
            pooling: self.pooling.as_deref().and_then(Pooling::by_name),
            normalize: self.normalize.as_deref().map(|v| v == "yes"),
            max_tokens: self.max_tokens,
            long,
            prompt: self.prompt.clone(),
            batch_tokens: self.batch_tokens,
            ..Default::default()
        })
    }
}

/// Loads an embedding model.
pub(crate) fn embedder(
    args: &EmbeddingArgs,
    engine: &EngineArgs,
    ui: &mut Ui,
) -> Result<(Embedder, String)> {
    let ready = load::encoder(args.model.as_deref(), "embed", engine, ui)?;
    let embedder = Embedder::new(&ready.engine, ready.model)?;
    let said = embedder.config().pooling.is_some() || embedder.has_own_vector();
    if !said && args.pooling.is_none() {
        ui.note("the model's files do not say how tokens become a vector (1_Pooling/config.json); taking the mean");
    }
    Ok((embedder, ready.name))
}

/// Pictures by path, with their vectors or what is wrong with them, which is also told.
pub(crate) type Seen = Vec<(String, Result<Vec<f32>, String>)>;

/// Embeds pictures with a progress line.
pub(crate) fn see(
    embedder: &Embedder,
    paths: &[PathBuf],
    options: &PictureOptions,
    ui: &mut Ui,
) -> Result<Seen> {
    let cancel = interrupt::listen();
    let options = PictureOptions {
        cancel: cancel.clone(),
        ..options.clone()
    };
    let mut seen: Vec<Option<Result<Vec<f32>, String>>> = vec![None; paths.len()];
    let (files, mut done) = (paths.to_vec(), 0);
    let open = move |i: usize| {
        let path = &files[i];
        let bytes = std::fs::read(path).map_err(|source| firelight_runtime::Error::Io {
            path: path.display().to_string(),
            source,
        })?;
        Ok(firelight_vision::decode(&bytes)?)
    };
    let mut each = |i: usize, vector: Result<Vec<f32>, firelight_runtime::Error>| {
        done += 1;
        ui.counting("embedding", done, paths.len(), "picture");
        seen[i] = Some(vector.map_err(|e| e.to_string()));
        Ok(())
    };
    let ended = pollster::block_on(embedder.embed_each(paths.len(), open, &options, &mut each));
    progress::leave_line();
    ended?;
    let mut all = Vec::with_capacity(paths.len());
    for (path, vector) in paths.iter().zip(seen) {
        let path = path.display().to_string();
        let vector = vector.unwrap_or_else(|| Err("it was not read".into()));
        if let Err(why) = &vector {
            ui.note(&format!("cannot use the picture {path}: {why}"));
        }
        all.push((path, vector));
    }
    Ok(all)
}

/// Embeds with a progress line.
pub(crate) fn embed(
    embedder: &Embedder,
    texts: &[Text],
    options: &EmbedOptions,
    ui: &mut Ui,
) -> Result<Embeddings> {
    let result = pollster::block_on(embedder.embed_with(texts, options, &mut |done, total| {
        ui.counting("embedding", done, total, "text");
    }));
    progress::leave_line();
    let result = result?;
    if result.truncated() > 0 {
        ui.note(&format!(
            "{} of {} were longer than {} tokens and were cut (--long mean or chunks takes all of them)",
            result.truncated(),
            crate::format::count(texts.len(), "text"),
            result.max_tokens
        ));
    }
    Ok(result)
}

pub(crate) fn run(args: &EmbedArgs) -> Result<u8> {
    interrupt::install()?;
    let options = args.embedding.options()?;
    let npy = match args
        .out
        .as_ref()
        .map(|path| path.extension().and_then(|e| e.to_str()))
    {
        None => false,
        Some(Some("npy")) => true,
        Some(Some("json")) => false,
        Some(_) => {
            return Err(Usage("--out takes a name that ends in .npy or .json".into()).into());
        }
    };
    let paths = pictures::files(&args.image)?;
    if !paths.is_empty() && args.embedding.model.is_none() {
        return Err(Usage(pictures::WHICH.into()).into());
    }
    let texts = match paths.is_empty() || !args.texts.is_empty() {
        true => args.texts.read()?,
        false => Vec::new(),
    };
    let mut ui = Ui::of(args.json);
    let (embedder, name) = embedder(&args.embedding, &args.engine, &mut ui)?;
    let start = Instant::now();
    let result = match texts.is_empty() {
        true => Embeddings {
            rows: Vec::new(),
            dims: embedder.dims(),
            max_tokens: 0,
        },
        false => embed(&embedder, &texts, &options, &mut ui)?,
    };
    let seen = match paths.is_empty() {
        true => Vec::new(),
        false => {
            let options = PictureOptions {
                raw: options.normalize == Some(false),
                ..PictureOptions::default()
            };
            see(&embedder, &paths, &options, &mut ui)?
        }
    };
    let failed = seen.iter().any(|(_, vector)| vector.is_err());
    let usable = seen.iter().filter_map(|(_, v)| v.as_ref().ok());
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let object = || {
        let rows = result.rows.iter().map(|row| {
            serde_json::json!({
                "text": row.text, "origin": texts[row.text].origin, "chunk": row.chunk, "tokens": row.tokens,
                "truncated": row.truncated, "vector": row.vector,
            })
        });
        let pictures = seen.iter().map(|(path, vector)| match vector {
            Ok(vector) => serde_json::json!({ "image": path, "vector": vector }),
            Err(why) => serde_json::json!({ "image": path, "error": why }),
        });
        let rows: Vec<_> = rows.chain(pictures).collect();
        serde_json::json!({
            "model": name, "dims": result.dims, "max_tokens": result.max_tokens, "ms": ms, "embeddings": rows,
        })
    };
    let vectors = result.rows.iter().map(|row| row.vector.as_slice());
    let vectors: Vec<&[f32]> = vectors.chain(usable.map(Vec::as_slice)).collect();
    if let Some(path) = &args.out {
        let bytes = match npy {
            true => npy::matrix(result.dims, vectors.iter().copied()),
            false => serde_json::to_vec(&object())?,
        };
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        ui.note(&format!(
            "wrote {} of {} numbers to {}",
            crate::format::count(vectors.len(), "vector"),
            result.dims,
            path.display()
        ));
    }
    if args.json {
        json::print(&object())?;
    } else if args.out.is_none() {
        let line = |vector: &[f32], of: &str| {
            let first: Vec<String> = vector.iter().take(4).map(|v| format!("{v:.4}")).collect();
            format!("[{}, … {} numbers]  {of}\n", first.join(", "), vector.len())
        };
        let mut shown = String::new();
        for row in &result.rows {
            let chunk = match row.chunk {
                0 => String::new(),
                n => format!(" (piece {})", n + 1),
            };
            shown.push_str(&line(
                &row.vector,
                &format!("{}{chunk}", texts[row.text].short(60)),
            ));
        }
        for (path, vector) in &seen {
            if let Ok(vector) = vector {
                shown.push_str(&line(vector, path));
            }
        }
        ui::to_stdout(&shown)?;
        ui.note("all numbers: --json, or --out FILE.npy");
    }
    Ok(if failed { FAILED } else { OK })
}
