//! `firelight features`: what a model's front end makes of a recording.

use super::sound::{self, SoundArgs};
use crate::ui::{self, Ui};
use crate::{OK, Usage, format, interrupt};
use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use firelight_runtime::pipelines::features::{FrontEnd, NAMES, to_safetensors};
use std::path::PathBuf;
use std::time::Instant;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FeaturesArgs {
    /// A recording: WAV, FLAC, MP3, Ogg Vorbis, AAC/M4A, Ogg or WebM Opus; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A front end by name
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(NAMES), conflicts_with = "processor")]
    preset: Option<String>,
    /// The front end of a model's folder (preprocessor_config.json)
    #[arg(long, value_name = "DIR")]
    processor: Option<PathBuf>,
    /// Write the features here, as safetensors
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Compute them from a stream in pieces of so many milliseconds: the same bytes
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    stream_chunk: Option<u32>,
    /// CPU threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    sound: SoundArgs,
}

const EXAMPLES: &str = "\
`input_features` is [windows, bands, frames] for Whisper (windows of 30 s), [1, frames, bands] for others, which have
`input_features_mask`, too: upstream's names and shapes.

Examples:
  firelight features speech.mp3 --preset whisper80 --out speech.safetensors
  firelight features speech.wav --processor ./gemma-4 --stream-chunk 100 --out speech.safetensors";

pub(crate) fn run(args: &FeaturesArgs) -> Result<u8> {
    interrupt::install()?;
    let front = match (&args.preset, &args.processor) {
        (Some(name), _) => FrontEnd::named(name)?,
        (None, Some(dir)) => FrontEnd::of_folder(dir)?,
        (None, None) => {
            return Err(Usage("one of --preset and --processor is needed".into()).into());
        }
    };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let front = front.with_threads(args.threads.map_or_else(cores, usize::from));
    let samples = sound::read(&args.file, front.rate(), &args.sound)?;
    let chunk = args
        .stream_chunk
        .map(|ms| (u64::from(ms) * u64::from(front.rate()) / 1000) as usize);
    let start = Instant::now();
    let tensors = front.compute(&samples, chunk.map(|n| n.max(1)))?;
    let took = start.elapsed().as_secs_f64();
    let bytes = to_safetensors(&tensors)?;
    std::fs::write(&args.out, bytes)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    for (name, tensor) in &tensors {
        ui::to_stdout(&format!("{name} {:?}\n", tensor.shape()))?;
    }
    let length = samples.len() as f64 / f64::from(front.rate());
    Ui::of(false).note(&format!(
        "{} of sound in {:.2} ms",
        format::clock(length),
        took * 1e3
    ));
    Ok(OK)
}
