//! Recordings for the commands that hear: from a file, or from standard input, at the rate a model wants.

use anyhow::{Context, Result};
use firelight_audio::{DecodeOptions, Decoder, Downmix, Resampler};
use firelight_tensor::{Bytes, open_source};
use std::io::Read;
use std::path::Path;

/// How recordings are read.
#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Sound")]
pub(crate) struct SoundArgs {
    /// How channels become one: `mean`, or `power` (their sum over the root of their number, as web apps do)
    #[arg(long, value_name = "HOW", default_value = "mean",
          value_parser = clap::builder::PossibleValuesParser::new(["mean", "power"]))]
    downmix: String,
    /// Take what is there of a file that ends too soon, instead of failing
    #[arg(long)]
    truncated: bool,
}

impl SoundArgs {
    fn options(&self) -> DecodeOptions {
        DecodeOptions {
            keep_truncated: self.truncated,
            downmix: match self.downmix.as_str() {
                "power" => Downmix::Power,
                _ => Downmix::Mean,
            },
            ..DecodeOptions::default()
        }
    }
}

/// The bytes of a file; `-` is standard input. A file is mapped: hours of sound take no memory.
pub(crate) fn bytes(path: &Path) -> Result<Bytes> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        return Ok(bytes.into());
    }
    // What cannot be mapped (a pipe, an empty file) is read.
    if std::fs::metadata(path).is_ok_and(|m| m.is_file())
        && let Ok(source) = open_source(path)
        && let Some(bytes) = Bytes::lent(&source, 0..source.len(), 1)
    {
        return Ok(bytes);
    }
    let read = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(read?.into())
}

/// Gives a recording's mono samples at `rate` Hz to `each`, block by block, with the length of the whole in seconds where the file
/// says it.
pub(crate) fn stream(
    bytes: &[u8],
    rate: u32,
    args: &SoundArgs,
    mut each: impl FnMut(&[f32], Option<f64>) -> Result<()>,
) -> Result<()> {
    let mut decoder = Decoder::new(bytes, &args.options()).map_err(said)?;
    let from = decoder.rate();
    let total = decoder.promised_samples();
    let total = total.map(|n| n as f64 / f64::from(from));
    let mut resampler = Resampler::new(from, rate)?;
    let mut samples = Vec::new();
    while let Some(block) = decoder.next_block().map_err(said)? {
        resampler.push(block, &mut samples)?;
        // In pieces of a second and more: what follows costs something per call.
        if samples.len() >= rate as usize {
            each(&samples, total)?;
            samples.clear();
        }
    }
    resampler.finish(&mut samples);
    each(&samples, total)
}

/// An error in the words of the command line.
fn said(e: firelight_audio::Error) -> anyhow::Error {
    let text = e.to_string();
    match text.split_once("set keep_truncated to take") {
        Some((before, after)) => anyhow::anyhow!("{before}--truncated takes{after}"),
        None => e.into(),
    }
}

/// All of a recording.
pub(crate) fn read(path: &Path, rate: u32, args: &SoundArgs) -> Result<Vec<f32>> {
    let bytes = bytes(path)?;
    let mut all = Vec::new();
    let read = stream(&bytes, rate, args, |samples, _| {
        all.extend_from_slice(samples);
        Ok(())
    });
    read.with_context(|| format!("cannot decode {}", path.display()))?;
    Ok(all)
}
