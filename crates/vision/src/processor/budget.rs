//! Fitting pictures into a context: fewer tokens by smaller pictures, in the way the family allows.

use super::soft::SOFT_TOKENS;
use super::tiles::TileSize;
use super::{Kind, Processor};
use crate::{Error, Result};

/// Settings that stand in for those of the file, under the reference's names. `None` keeps the file's; what a kind has
/// no use for is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// Qwen2-VL: the fewest pixels of the resized picture.
    pub min_pixels: Option<usize>,
    /// Qwen2-VL: the most pixels of the resized picture.
    pub max_pixels: Option<usize>,
    /// Gemma 4: the most tokens of a picture; 70, 140, 280, 560 or 1120.
    pub max_soft_tokens: Option<usize>,
    /// Idefics3, SmolVLM: the longer side before the picture is cut into tiles.
    pub longest_edge: Option<usize>,
    /// Idefics3, SmolVLM: whether the picture is cut into tiles at all.
    pub do_image_splitting: Option<bool>,
}

impl Processor {
    /// This processor with other settings.
    ///
    /// # Errors
    /// `InvalidInput` if this kind has no such setting or the value is out of its range.
    pub fn with(&self, overrides: &Overrides) -> Result<Processor> {
        let mut out = self.clone();
        let Overrides {
            min_pixels,
            max_pixels,
            max_soft_tokens,
            longest_edge,
            do_image_splitting,
        } = *overrides;
        let given = [
            ("min_pixels", min_pixels.is_some()),
            ("max_pixels", max_pixels.is_some()),
            ("max_soft_tokens", max_soft_tokens.is_some()),
            ("longest_edge", longest_edge.is_some()),
            ("do_image_splitting", do_image_splitting.is_some()),
        ];
        let takes: &[&str] = match &mut out.kind {
            Kind::Grid(k) => {
                k.min_pixels = min_pixels.unwrap_or(k.min_pixels);
                k.max_pixels = max_pixels.unwrap_or(k.max_pixels);
                if max_pixels.is_some() {
                    k.min_pixels = k.min_pixels.min(k.max_pixels);
                }
                if k.max_pixels < (k.patch * k.merge).pow(2) {
                    return Err(Error::invalid(format!(
                        "max_pixels is at least {} (one token), got {}",
                        (k.patch * k.merge).pow(2),
                        k.max_pixels
                    )));
                }
                &["min_pixels", "max_pixels"]
            }
            Kind::Soft(k) => {
                k.soft_tokens = max_soft_tokens.unwrap_or(k.soft_tokens);
                if !SOFT_TOKENS.contains(&k.soft_tokens) {
                    return Err(Error::invalid(format!(
                        "max_soft_tokens is one of {SOFT_TOKENS:?}, got {}",
                        k.soft_tokens
                    )));
                }
                &["max_soft_tokens"]
            }
            Kind::Tiles(k) => {
                if let Some(side) = longest_edge {
                    if side == 0 {
                        return Err(Error::invalid("longest_edge is at least 1, got 0"));
                    }
                    k.size = TileSize::Longest(side);
                }
                k.split = do_image_splitting.unwrap_or(k.split);
                &["longest_edge", "do_image_splitting"]
            }
            Kind::Fixed(_) | Kind::Detect(_) => &[],
        };
        match given.iter().find(|(name, is)| *is && !takes.contains(name)) {
            Some((name, _)) => Err(Error::invalid(format!(
                "this kind of processor has no {name}; it takes {takes:?}"
            ))),
            None => Ok(out),
        }
    }

    /// This processor with settings under which pictures of these sizes (width, height) take at most `tokens` of the
    /// prompt, marks included; itself, where they do already. `per_input` as for [`Plan::tokens`](super::Plan::tokens).
    ///
    /// Qwen2-VL lowers `max_pixels`, Gemma 4 `max_soft_tokens`; Idefics3 and SmolVLM make fewer tiles and in the end none.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such setting, with the fewest tokens there can be; as [`Processor::plan`].
    pub fn within(
        &self,
        tokens: usize,
        per_input: usize,
        sizes: &[(usize, usize)],
    ) -> Result<Processor> {
        let cost = |p: &Processor| {
            sizes.iter().try_fold(0usize, |sum, &(w, h)| {
                let plan = p.plan(w, h)?;
                Ok::<_, Error>(sum.saturating_add(plan.tokens(per_input) + plan.marks()))
            })
        };
        if cost(self)? <= tokens {
            return Ok(self.clone());
        }
        let mut least = self.clone();
        match &self.kind {
            Kind::Grid(k) => {
                // The cost does not fall everywhere with max_pixels (sides are rounded), so the bound is on whole tokens.
                let token = (k.patch * k.merge).pow(2);
                let (mut low, mut high) = (1, k.max_pixels.div_ceil(token));
                let at = |n: usize| {
                    self.with(&Overrides {
                        max_pixels: Some(n * token),
                        ..Overrides::default()
                    })
                };
                while low < high {
                    let middle = low + (high - low).div_ceil(2);
                    match cost(&at(middle)?)? <= tokens {
                        true => low = middle,
                        false => high = middle - 1,
                    }
                }
                least = at(low)?;
            }
            Kind::Soft(k) => {
                let smaller = SOFT_TOKENS.iter().rev().filter(|&&n| n < k.soft_tokens);
                for &n in smaller {
                    least = self.with(&Overrides {
                        max_soft_tokens: Some(n),
                        ..Overrides::default()
                    })?;
                    if cost(&least)? <= tokens {
                        return Ok(least);
                    }
                }
            }
            Kind::Tiles(k) if k.split => {
                let longest = match k.size {
                    TileSize::Longest(n) => n,
                    TileSize::Exact(w, h) => w.max(h),
                };
                for n in (1..=longest.div_ceil(k.side)).rev() {
                    least = self.with(&Overrides {
                        longest_edge: Some((n * k.side).min(longest)),
                        ..Overrides::default()
                    })?;
                    if cost(&least)? <= tokens {
                        return Ok(least);
                    }
                }
            }
            _ => {}
        }
        match cost(&least)? {
            got if got <= tokens => Ok(least),
            got => Err(Error::invalid(format!(
                "the pictures take {got} tokens at the least and {tokens} are left; give fewer pictures or a larger context"
            ))),
        }
    }
}
