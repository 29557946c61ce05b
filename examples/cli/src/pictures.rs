//! Pictures from files, and messages that hold them.

use anyhow::{Context, Result};
use firelight_runtime::{Medium, Message};
use firelight_text::{Content, Part};
use std::path::Path;

/// Reads and decodes a picture: PNG, JPEG, WebP, GIF, BMP, by content and not by name, turned as its EXIF says.
pub(crate) fn open(path: &Path) -> Result<Medium> {
    let shown = || format!("cannot use the picture {}", path.display());
    let bytes = std::fs::read(path).with_context(shown)?;
    let image = firelight_vision::decode(&bytes).with_context(shown)?;
    Ok(image.into())
}

/// A question about `pictures` pictures, which come first.
pub(crate) fn question(text: String, pictures: usize) -> Message {
    if pictures == 0 {
        return Message::user(text);
    }
    let mut parts = vec![Part::image(); pictures];
    parts.push(Part::text(text));
    Message::user(Content::Parts(parts))
}
