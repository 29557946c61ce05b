//! `firelight search`: the pictures of a folder by what is on them.

use super::embed::{EmbeddingArgs, embedder};
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{OK, Usage, format, interrupt, json, pictures, progress};
use anyhow::{Context, Result};
use firelight_runtime::pipelines::embed::EmbedOptions;
use firelight_runtime::pipelines::pictures::PictureOptions;
use firelight_runtime::pipelines::search::PictureIndex;
use firelight_runtime::source::Options;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SearchArgs {
    /// The folder with the pictures: PNG, JPEG, WebP, GIF, BMP, also in the folders inside
    folder: PathBuf,
    /// What to look for, in words; nothing: only bring the index up to date
    query: Option<String>,
    /// Look for what resembles this picture
    #[arg(short, long, value_name = "PATH", conflicts_with = "query")]
    image: Option<PathBuf>,
    /// How many to show
    #[arg(short = 'k', long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// A model of texts and pictures (CLIP, SigLIP): its folder, or `hf:OWNER/REPO[@REVISION]`
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Where the index is kept [default: a file in the cache, one per folder and model]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object: {"folder":…,"query":…,"matches":[{"path":…,"similarity":…},…],"failed":[{"path":…,"error":…},…],
    /// "index":{"file":…,"pictures":…,"encoded":…,"failed":…,"removed":…},…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
The first search of a folder encodes its pictures, later ones those that are new or changed. An interrupted one goes on where it
was. Similarities are cosines: their order means something, their size differs from model to model.

Examples:
  firelight search photos/ \"red bicycle\" --model hf:google/siglip-base-patch16-224
  firelight search photos/ \"a birthday cake\" -k 20 --json -m ./clip | jq -r '.matches[].path'
  firelight search photos/ --image bicycle.jpg -m ./clip
  firelight search photos/ -m ./clip --index photos.index";

pub(crate) fn run(args: &SearchArgs) -> Result<u8> {
    interrupt::install()?;
    let Some(model) = &args.model else {
        return Err(Usage(pictures::WHICH.into()).into());
    };
    let mut ui = Ui::of(args.json);
    let embedding = EmbeddingArgs::of(model.clone());
    let (embedder, name) = embedder(&embedding, &args.engine, &mut ui)?;
    let loaded = embedder.model();
    let file = match &args.index {
        Some(file) => file.clone(),
        None => default_file(&args.folder, loaded.checkpoint.root())?,
    };
    let mut index = PictureIndex::open(file.clone(), args.folder.clone(), &loaded)?;
    if let Some(why) = index.discarded() {
        ui.note(&format!("{why}; the index is made anew"));
    }
    let update = {
        let cancel = interrupt::listen();
        let mut progress = |done, total| ui.counting("looking at", done, total, "picture");
        let updated = pollster::block_on(index.update(&embedder, &cancel, &mut progress));
        progress::leave_line();
        updated.with_context(|| format!("cannot index {}", args.folder.display()))?
    };
    anyhow::ensure!(
        update.pictures + update.failed > 0,
        "there is no picture in {}",
        args.folder.display()
    );
    let count = format::count(update.pictures, "picture");
    ui.note(&format!(
        "{count}, {} of them looked at now",
        update.encoded
    ));
    for (path, why) in index.failed().take(3) {
        ui.note(&format!("cannot use {}: {why}", format::harmless(path)));
    }
    if update.failed > 3 {
        ui.note(&format!(
            "and {} more that cannot be used (--json names them)",
            update.failed - 3
        ));
    }
    let query = match (&args.query, &args.image) {
        (Some(words), _) => {
            let options = EmbedOptions::default();
            pollster::block_on(embedder.embed(&[words], &options))?.vectors()
        }
        (None, Some(path)) => {
            let shown = || format!("cannot use the picture {}", path.display());
            let bytes = std::fs::read(path).with_context(shown)?;
            let image = firelight_vision::decode(&bytes).with_context(shown)?;
            pollster::block_on(embedder.embed_pictures(&[image], &PictureOptions::default()))?
        }
        (None, None) => Vec::new(),
    };
    let hits = query.first().map(|q| index.search(q, args.top));
    let hits = hits.unwrap_or_default();
    if args.json {
        let failed: Vec<_> = index
            .failed()
            .map(|(path, why)| serde_json::json!({ "path": path, "error": why }))
            .collect();
        json::print(&serde_json::json!({
            "folder": args.folder.display().to_string(), "query": args.query, "model": name, "matches": hits, "failed": failed,
            "index": {
                "file": file.display().to_string(), "pictures": update.pictures, "encoded": update.encoded,
                "failed": update.failed, "removed": update.removed,
            },
        }))?;
        return Ok(OK);
    }
    let mut shown = String::new();
    for hit in hits {
        let path = args.folder.join(&hit.path).display().to_string();
        shown.push_str(&format!(
            "{:.4}  {}\n",
            hit.similarity,
            format::harmless(&path)
        ));
    }
    ui::to_stdout(&shown)?;
    Ok(OK)
}

/// The file of a folder's index in the cache.
fn default_file(folder: &Path, model: &Path) -> Result<PathBuf> {
    let cache = Options::from_env()?.cache_dir;
    let mut hash = Sha256::new();
    for path in [folder, model] {
        let full = path.canonicalize();
        let full = full.with_context(|| format!("cannot open {}", path.display()))?;
        hash.update(full.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    let name: String = hash.finalize()[..12]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok(cache.join("search").join(format!("{name}.index")))
}
