//! Moving pictures: frames of one size, sampled in time, as patches that span several of them (Qwen2-VL, Qwen3-VL and
//! Qwen3.5).
//!
//! ```text
//! Qwen2-VL      step = total/n          frames ⌊i·step⌋
//! Qwen3-VL      step = (total−1)/(n−1)  frames round(i·step), halves to even
//! ```
//! n comes from the wanted frames per second, or is given. Qwen2-VL bounds the pixels of a frame, Qwen3-VL those of all
//! frames together.

use super::grid::{Grid, nearest_size};
use super::{Layout, Plan, Steps, config, integers};
use crate::{Error, Image, Reference, Result, pixels};
use firelight_tensor::Tensor;

/// Frames to the tensors a vision-language model takes.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoProcessor {
    pub(super) steps: Steps,
    pub(super) grid: Grid,
    pub(super) style: Style,
    pub(super) sampling: Sampling,
}

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Qwen2,
    Qwen3,
}

/// Which frames are taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampling {
    /// Whether frames are left out unless the caller asks for it.
    pub(super) on: bool,
    /// Wanted frames per second.
    pub(super) fps: Option<f64>,
    pub(super) num_frames: Option<usize>,
    pub(super) min_frames: usize,
    pub(super) max_frames: usize,
}

/// What a processor makes of one video.
#[derive(Clone, Debug)]
pub struct ProcessedVideo {
    /// `pixel_values_videos`: `[patches, values]` f32.
    pub pixel_values: Tensor,
    /// `video_grid_thw`: `[1, 3]` i64.
    pub grid: Tensor,
    /// Its plan, a [`Layout::Grid`] with `t` groups of frames.
    pub plan: Plan,
}

impl VideoProcessor {
    /// The processor of a `processor_config.json` (its `video_processor`), a `video_preprocessor_config.json`, or, as older
    /// checkpoints have it, a `preprocessor_config.json` of `Qwen2VLImageProcessor`.
    ///
    /// Classes: `Qwen2VLVideoProcessor`, `Qwen3VLVideoProcessor` (also Qwen3.5's).
    ///
    /// # Errors
    /// As [`Processor::from_config`](super::Processor::from_config).
    pub fn from_config(json: &str) -> Result<Self> {
        config::parse_video(json, Reference::Torchvision)
    }

    /// Which of `total` frames are taken, where the film has `fps` frames per second (24 if that is not known). All of
    /// them, if the file does not ask for sampling.
    ///
    /// # Errors
    /// `InvalidInput` if `fps` is not above zero or the file asks for more frames than there are.
    pub fn sample(&self, total: usize, fps: Option<f64>) -> Result<Vec<usize>> {
        let s = &self.sampling;
        let fps = fps.unwrap_or(24.0);
        if !(fps > 0.0 && fps.is_finite()) {
            return Err(Error::invalid(format!(
                "a film has more than 0 frames per second, got {fps}"
            )));
        }
        if !s.on || total == 0 {
            return Ok((0..total).collect());
        }
        let per_group = self.grid.temporal;
        let wanted = |to: f64| total as f64 / fps * to;
        let n = match (self.style, s.num_frames, s.fps) {
            (Style::Qwen2, Some(n), _) => {
                (n as f64 / per_group as f64).round_ties_even() as usize * per_group
            }
            (Style::Qwen2, None, Some(to)) => {
                let most = s.max_frames.min(total) / per_group * per_group;
                let n = wanted(to).max(s.min_frames as f64).min(most as f64);
                (n / per_group as f64).floor() as usize * per_group
            }
            (Style::Qwen2, None, None) => total,
            (Style::Qwen3, Some(n), _) => n,
            (Style::Qwen3, None, Some(to)) => (wanted(to) as usize)
                .max(s.min_frames)
                .min(s.max_frames)
                .min(total),
            (Style::Qwen3, None, None) => total.max(s.min_frames).min(s.max_frames),
        };
        if n > total && self.style == Style::Qwen2 {
            return Err(Error::invalid(format!(
                "{n} frames are wanted and there are {total}; set num_frames lower"
            )));
        }
        let n = n.clamp(1, total);
        if n == total {
            return Ok((0..total).collect());
        }
        let index = |i: usize| match self.style {
            Style::Qwen2 => (i as f64 * (total as f64 / n as f64)) as f32 as usize,
            Style::Qwen3 if n == 1 => 0,
            Style::Qwen3 => {
                (i as f64 * ((total - 1) as f64 / (n - 1) as f64)).round_ties_even() as usize
            }
        };
        Ok((0..n).map(|i| index(i).min(total - 1)).collect())
    }

    /// What becomes of so many frames of this size.
    ///
    /// # Errors
    /// As [`Processor::plan`](super::Processor::plan); `InvalidInput` if there are fewer frames than a patch spans.
    pub fn plan(&self, frames: usize, width: usize, height: usize) -> Result<Plan> {
        if frames == 0 || width == 0 || height == 0 {
            return Err(Error::invalid(format!(
                "a film has frames with pixels, got {frames} of {width}×{height}"
            )));
        }
        let grid = &self.grid;
        let (w, h) = match (self.steps.resize, self.style) {
            (false, _) => {
                let plan = grid.plan(&self.steps, width, height)?;
                (plan.width, plan.height)
            }
            (true, Style::Qwen2) => grid.size(width, height)?,
            (true, Style::Qwen3) => self.all_frames(frames, width, height)?,
        };
        let plan = Plan {
            width: w,
            height: h,
            layout: Layout::Grid {
                t: frames.div_ceil(grid.temporal),
                h: h / grid.patch,
                w: w / grid.patch,
                merge: grid.merge,
            },
        };
        plan.check()
    }

    fn all_frames(&self, frames: usize, width: usize, height: usize) -> Result<(usize, usize)> {
        let grid = &self.grid;
        if frames < grid.temporal {
            return Err(Error::invalid(format!(
                "a film has at least {} frames, got {frames}; repeat the last one",
                grid.temporal
            )));
        }
        let f = grid.factor() as f64;
        let (mut w, mut h) = (width as f64, height as f64);
        if w < f || h < f {
            let scale = (f / h).max(f / w);
            (w, h) = ((w * scale).trunc(), (h * scale).trunc());
        }
        let t = (frames as f64 / grid.temporal as f64).round_ties_even() * grid.temporal as f64;
        nearest_size(
            (w, h),
            f,
            (t, frames as f64),
            grid.min_pixels,
            grid.max_pixels,
        )
    }

    /// Frames of one size, in order, as they were sampled.
    ///
    /// # Errors
    /// `InvalidInput` if their sizes differ, and as [`VideoProcessor::plan`].
    pub fn process(&self, frames: &[Image]) -> Result<ProcessedVideo> {
        let (width, height) = frames.first().map_or((0, 0), |f| (f.width(), f.height()));
        let plan = self.plan(frames.len(), width, height)?;
        if let Some(other) = frames
            .iter()
            .find(|f| (f.width(), f.height()) != (width, height))
        {
            return Err(Error::invalid(format!(
                "the frames of a film have one size, got {width}×{height} and {other:?}"
            )));
        }
        let resized = frames
            .iter()
            .map(|f| self.steps.resized(f, (plan.width, plan.height)))
            .collect::<Result<Vec<_>>>()?;
        let Layout::Grid { t, h, w, .. } = plan.layout else {
            return Err(Error::invalid("films become grids"));
        };
        let grid = &self.grid;
        let columns = 3 * grid.temporal * grid.patch * grid.patch;
        let frames: Vec<&Image> = resized.iter().collect();
        let pixel_values = pixels::whole(&[t * h * w, columns], |out| {
            pixels::patches(&frames, &self.steps.normalize, grid.layout(), out);
        })?;
        Ok(ProcessedVideo {
            pixel_values,
            grid: integers(&[t as i64, h as i64, w as i64], &[1, 3])?,
            plan,
        })
    }
}
