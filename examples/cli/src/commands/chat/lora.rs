//! `--lora DIR[=SCALE]`: which adapters, and what merging did.

use crate::{Usage, format};
use anyhow::{Context, Result};
use firelight_runtime::adapter::Merged;
use firelight_runtime::{Adapter, AdapterUse};
use std::path::Path;

/// Opens what was given.
pub(super) fn open(given: &[String]) -> Result<Vec<AdapterUse>> {
    given.iter().map(|text| one(text)).collect()
}

fn one(text: &str) -> Result<AdapterUse> {
    let (dir, scale) = split(text)?;
    let adapter = Adapter::open(dir).with_context(|| format!("cannot use the adapter {dir}"))?;
    Ok(AdapterUse { adapter, scale })
}

/// Folder and factor. A folder whose name has a `=` is taken whole.
fn split(text: &str) -> Result<(&str, f32), Usage> {
    let Some((dir, scale)) = text.rsplit_once('=').filter(|_| !Path::new(text).is_dir()) else {
        return Ok((text, 1.0));
    };
    match scale.parse::<f32>() {
        Ok(scale) if scale.is_finite() => Ok((dir, scale)),
        _ => Err(Usage(format!(
            "--lora {text}: `{scale}` is no factor; expected DIR or DIR=0.5"
        ))),
    }
}

/// What was merged, and what became less exact by it.
pub(super) fn merged(log: &[Merged]) -> String {
    let rounded: Vec<_> = log.iter().filter(|m| m.held.is_quantized()).collect();
    let mut text = format!("adapters merged into {}", format::count(log.len(), "layer"));
    if !rounded.is_empty() {
        let mut types: Vec<_> = rounded.iter().map(|m| m.held.name()).collect();
        types.sort_unstable();
        types.dedup();
        text.push_str(&format!(
            "; {} of them were dequantised and quantised again ({}): not exactly what the adapter says",
            rounded.len(),
            types.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_follows_the_folder() {
        assert_eq!(split("a/b").expect("a folder"), ("a/b", 1.0));
        assert_eq!(split("a/b=0.5").expect("both"), ("a/b", 0.5));
        assert_eq!(split("a=b=-2").expect("both"), ("a=b", -2.0));
        assert!(split("a/b=").is_err() && split("a/b=x").is_err() && split("a=inf").is_err());
    }
}
