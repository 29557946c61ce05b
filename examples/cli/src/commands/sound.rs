//! Recordings for the commands that hear: from a file, or from standard input, at the rate a model wants.

use anyhow::{Context, Result};
use firelight_audio::{DecodeOptions, Decoder, Downmix, Resampler};
use std::io::Read;
use std::path::Path;

/// How recordings are read.
#[derive(clap::Args, Clone)]
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

/// The bytes of a file; `-` is standard input.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Gives a recording's mono samples at `rate` Hz to `each`, block by block, with the length of the whole in seconds where the file
/// says it.
pub(crate) fn stream(
    bytes: &[u8],
    rate: u32,
    args: &SoundArgs,
    mut each: impl FnMut(&[f32], Option<f64>) -> Result<()>,
) -> Result<()> {
    let mut decoder = Decoder::new(bytes, &args.options())?;
    let from = decoder.rate();
    let total = decoder.promised_samples();
    let total = total.map(|n| n as f64 / f64::from(from));
    let mut resampler = Resampler::new(from, rate)?;
    let mut samples = Vec::new();
    while let Some(block) = decoder.next_block()? {
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
