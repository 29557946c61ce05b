//! `firelight preprocess`: pictures as the tensors a vision model takes.

use crate::ui::{self, Ui};
use crate::{OK, Usage, format, json, progress};
use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use firelight_tensor::{Tensor, safetensors};
use firelight_vision::{Layout, Overrides, Plan, Processor, Reference, decode, dimensions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PreprocessArgs {
    /// Picture files, in the order of the prompt: PNG, JPEG, WebP, GIF (first frame), BMP
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// A checkpoint's folder, or its preprocessor_config.json or processor_config.json
    #[arg(short, long, value_name = "DIR|FILE")]
    processor: PathBuf,
    /// The safetensors file to write; without it only what would come out is told, from the files' headers
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write what the vision tower sees, before it becomes numbers, as PNG files into this folder
    #[arg(long, value_name = "DIR")]
    views: Option<PathBuf>,
    /// Whose rounding to equal [default: as the class's name says, torchvision unless it ends in Pil]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["torchvision", "pillow"]))]
    reference: Option<String>,
    /// Make the pictures smaller, so that together they take at most so many tokens of the prompt
    #[arg(long, value_name = "TOKENS")]
    budget: Option<usize>,
    /// Tokens of one tile or picture, where the processor's files do not say (for --budget and the count)
    #[arg(long, value_name = "N")]
    image_seq_len: Option<usize>,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// One JSON object: {"images":[{"file":…,"width":…,"height":…,"tokens":…,"layout":…}],"tensors":[{"name":…,"dtype":…,"shape":…}],…}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settings instead of the file's.
#[derive(clap::Args)]
#[command(next_help_heading = "Instead of the file's settings")]
struct OverrideArgs {
    /// Qwen2-VL, Qwen3.5: the most pixels of a resized picture
    #[arg(long, value_name = "N")]
    max_pixels: Option<usize>,
    /// Qwen2-VL, Qwen3.5: the fewest pixels of a resized picture
    #[arg(long, value_name = "N")]
    min_pixels: Option<usize>,
    /// Gemma 4: the most tokens of a picture; 70, 140, 280, 560 or 1120
    #[arg(long, value_name = "N")]
    max_soft_tokens: Option<usize>,
    /// Idefics3, SmolVLM: the longer side before the picture is cut into tiles
    #[arg(long, value_name = "PIXELS")]
    longest_edge: Option<usize>,
    /// Idefics3, SmolVLM: one view of the whole picture, no tiles
    #[arg(long)]
    no_splitting: bool,
}

const EXAMPLES: &str = "\
The tensors have the names, shapes, types and values that transformers' image processor returns for the same files: equal to the
bit, but for JPEG, whose decoders differ by a rounding (see crates/vision). Classes: Qwen2-VL (also Qwen3.5's), SmolVLM, Idefics3,
Gemma 4, CLIP, SigLIP, ViT, DeiT, Bit, MobileNet, EfficientNet, YOLOS, RT-DETR (also D-FINE's).

Examples:
  firelight preprocess cat.jpg --processor ./SmolVLM-256M-Instruct                   what would come out, and for how many tokens
  firelight preprocess cat.jpg dog.png -p ./Qwen2-VL-2B-Instruct -o pixels.safetensors
  firelight preprocess scan.png -p ./Qwen2-VL-2B-Instruct --budget 512 -o pixels.safetensors
  firelight preprocess cat.jpg -p clip/preprocessor_config.json -o x.safetensors --views seen/
  python -c 'from safetensors.torch import load_file; print(load_file(\"pixels.safetensors\"))'";

pub(crate) fn run(args: &PreprocessArgs) -> Result<u8> {
    let mut ui = Ui::of(args.json);
    let start = Instant::now();
    let processor = processor(args)?;
    let sizes = args
        .images
        .iter()
        .map(|path| {
            let (width, height) = dimensions(&read(path)?).with_context(|| named(path))?;
            Ok((width, height))
        })
        .collect::<Result<Vec<_>>>()?;
    let per_input = args.image_seq_len.or(processor.image_seq_len());
    let processor = match args.budget {
        None => processor,
        Some(tokens) => {
            let smaller = processor.within(tokens, per_input.unwrap_or(0), &sizes)?;
            if smaller != processor {
                ui.note(&format!(
                    "pictures made smaller to take at most {}",
                    format::count(tokens, "token")
                ));
            }
            smaller
        }
    };
    let mut plans = Vec::new();
    for (path, &(width, height)) in args.images.iter().zip(&sizes) {
        plans.push(processor.plan(width, height).with_context(|| named(path))?);
    }
    if let Some(folder) = &args.views {
        views(&processor, args, folder, &mut ui)?;
    }
    let tensors = match &args.out {
        None => Vec::new(),
        Some(out) => {
            // One decoded picture at a time.
            let each = args.images.iter().enumerate().map(|(i, path)| {
                ui.counting("reading", i + 1, args.images.len(), "picture");
                decode(&std::fs::read(path).map_err(|e| unreadable(&e))?)
            });
            let made = processor.process_each(each)?;
            if made.plans != plans {
                bail!("a picture's size is not what its header says; its file is broken");
            }
            let tensors = made.tensors()?;
            write(out, &tensors).with_context(|| format!("cannot write {}", out.display()))?;
            tensors
        }
    };
    progress::leave_line();
    let told = Told {
        args,
        sizes: &sizes,
        plans: &plans,
        tensors: &tensors,
        per_input,
        ms: start.elapsed().as_secs_f64() * 1e3,
    };
    match args.json {
        true => json::print(&told.json())?,
        false => ui::to_stdout(&told.text())?,
    }
    Ok(OK)
}

/// The file was readable a moment ago, when its header was read.
fn unreadable(e: &std::io::Error) -> firelight_vision::Error {
    firelight_vision::Error::InvalidInput(format!("the file went away: {e}"))
}

fn named(path: &Path) -> String {
    format!("cannot use {}", path.display())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn processor(args: &PreprocessArgs) -> Result<Processor> {
    let path = &args.processor;
    let reference = args.reference.as_deref().map(|name| match name {
        "pillow" => Reference::Pillow,
        _ => Reference::Torchvision,
    });
    let of_file = |path: &Path| -> Result<String> {
        String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))
    };
    let made = if path.is_dir() {
        Processor::from_checkpoint(
            |name| {
                let file = path.join(name);
                match file.exists() {
                    true => of_file(&file).map(Some),
                    false => Ok(None),
                }
            },
            reference,
        )
    } else {
        let text = of_file(path)?;
        match reference {
            Some(reference) => Processor::from_config_as(&text, reference),
            None => Processor::from_config(&text),
        }
        .map_err(anyhow::Error::from)
    };
    let made = made.with_context(|| format!("no processor in {}", path.display()))?;
    let o = &args.overrides;
    let mut overrides = Overrides::default();
    overrides.min_pixels = o.min_pixels;
    overrides.max_pixels = o.max_pixels;
    overrides.max_soft_tokens = o.max_soft_tokens;
    overrides.longest_edge = o.longest_edge;
    overrides.do_image_splitting = o.no_splitting.then_some(false);
    made.with(&overrides)
        .map_err(|e| Usage(e.to_string()).into())
}

/// The 8-bit stage as files `NAME-0.png`, `NAME-1.png`, …
fn views(processor: &Processor, args: &PreprocessArgs, folder: &Path, ui: &mut Ui) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (i, path) in args.images.iter().enumerate() {
        ui.counting("drawing", i + 1, args.images.len(), "picture");
        let image = decode(&read(path)?).with_context(|| named(path))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for (n, view) in processor.views(&image)?.iter().enumerate() {
            let file = folder.join(format!("{i}-{stem}-{n}.png"));
            std::fs::write(&file, view.to_png()?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

/// Beside its place first, so that a half-written file never has the name.
fn write(out: &Path, tensors: &[(&str, Tensor)]) -> Result<()> {
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&part)?);
    let named = tensors.iter().map(|(name, tensor)| (*name, tensor));
    safetensors::write(&mut file, &BTreeMap::new(), named)?;
    drop(file);
    Ok(std::fs::rename(&part, out)?)
}

/// What is told at the end.
struct Told<'a> {
    args: &'a PreprocessArgs,
    sizes: &'a [(usize, usize)],
    plans: &'a [Plan],
    tensors: &'a [(&'static str, Tensor)],
    per_input: Option<usize>,
    ms: f64,
}

impl Told<'_> {
    /// A picture's tokens, where they are known.
    fn tokens(&self, plan: &Plan) -> Option<usize> {
        match (&plan.layout, self.per_input) {
            (Layout::Whole | Layout::Tiles { .. }, None) => None,
            (_, per_input) => Some(plan.tokens(per_input.unwrap_or(0))),
        }
    }

    fn json(&self) -> Value {
        let images = self.args.images.iter().zip(self.sizes).zip(self.plans);
        let images = images.map(|((path, (width, height)), plan)| {
            let layout = match plan.layout {
                Layout::Tiles { rows, cols, side } => json!({"kind": "tiles", "rows": rows, "cols": cols, "side": side}),
                Layout::Grid { t, h, w, merge } => json!({"kind": "grid", "t": t, "h": h, "w": w, "merge": merge}),
                Layout::Soft { rows, cols, pool } => json!({"kind": "soft", "rows": rows, "cols": cols, "pool": pool}),
                _ => json!({"kind": "whole"}),
            };
            json!({
                "file": path.display().to_string(), "width": width, "height": height,
                "resized": [plan.width, plan.height], "inputs": plan.inputs(), "tokens": self.tokens(plan), "layout": layout,
            })
        });
        let tensors = self.tensors.iter().map(
            |(name, t)| json!({"name": name, "dtype": t.dtype().to_string(), "shape": t.shape()}),
        );
        json!({
            "images": images.collect::<Vec<_>>(), "tensors": tensors.collect::<Vec<_>>(),
            "out": self.args.out.as_ref().map(|p| p.display().to_string()), "ms": self.ms,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for ((path, (width, height)), plan) in
            self.args.images.iter().zip(self.sizes).zip(self.plans)
        {
            let what = match plan.layout {
                Layout::Tiles { rows: 0, .. } => {
                    format!("one view of {}×{}", plan.width, plan.height)
                }
                Layout::Tiles { rows, cols, side } => {
                    format!("{rows} × {cols} tiles of {side}×{side}, and a view of the whole")
                }
                Layout::Grid { h, w, .. } => {
                    format!("{w} × {h} patches of {}×{}", plan.width, plan.height)
                }
                Layout::Soft { rows, cols, .. } => {
                    format!("{cols} × {rows} patches of {}×{}", plan.width, plan.height)
                }
                _ => format!("{}×{}", plan.width, plan.height),
            };
            let tokens = self.tokens(plan);
            let tokens = tokens.map_or(String::new(), |n| {
                format!(", {}", format::count(n, "token"))
            });
            text.push_str(&format!(
                "{}: {width}×{height} → {what}{tokens}\n",
                path.display()
            ));
        }
        for (name, tensor) in self.tensors {
            text.push_str(&format!(
                "  {name} {} {:?}\n",
                tensor.dtype(),
                tensor.shape()
            ));
        }
        match &self.args.out {
            Some(out) => text.push_str(&format!(
                "{} written in {}\n",
                out.display(),
                format::seconds(self.ms / 1e3)
            )),
            None => text.push_str("nothing written; --out FILE writes the tensors\n"),
        }
        text
    }
}
