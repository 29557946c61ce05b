//! The frames of animated files.

use crate::decode::{self, DecodeOptions, Format};
use crate::{Image, Result};

/// A frame and how long it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What is seen, whole.
    pub image: Image,
    /// Milliseconds until the next frame; 0 in files that do not say.
    pub millis: u32,
}

/// All frames of a GIF or animated WebP, each as it is seen (what earlier frames left included); the one picture of any other
/// file. Frames per second, for [`VideoProcessor::sample`](crate::VideoProcessor::sample), are 1000 through the mean of `millis`.
///
/// # Errors
/// As [`decode_with`](crate::decode_with); `options.max_bytes` is for all frames together.
pub fn frames(bytes: &[u8], options: &DecodeOptions) -> Result<Vec<Frame>> {
    match Format::of(bytes) {
        #[cfg(feature = "gif")]
        Some(Format::Gif) => decode::gif_frames(bytes, options),
        #[cfg(feature = "webp")]
        Some(Format::WebP) => decode::webp_frames(bytes, options),
        _ => Ok(vec![Frame {
            image: decode::decode_with(bytes, options)?,
            millis: 0,
        }]),
    }
}
