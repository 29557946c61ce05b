//! Pictures from files, and messages that hold them.

use anyhow::{Context, Result};
use firelight_runtime::pipelines::search::EXTENSIONS;
use firelight_runtime::{Medium, Message};
use firelight_text::{Content, Part};
use std::path::{Path, PathBuf};

/// What to say where a model of texts and pictures is needed and none was named.
pub(crate) const WHICH: &str = "no model for pictures and words comes with the program; name one with --model: \
    hf:google/siglip-base-patch16-224, hf:openai/clip-vit-base-patch32, or a folder";

/// Whether a file's name is that of a picture.
fn named_so(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

/// Whether an argument means a picture, or a folder of them, and no text: by its name, or by what is there.
pub(crate) fn meant(argument: &str) -> bool {
    let path = Path::new(argument);
    if named_so(path) && !argument.contains('\n') {
        return true;
    }
    if path.is_dir() {
        return true;
    }
    let mut start = [0; 16];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut start));
    read.is_ok_and(|n| firelight_vision::Format::of(&start[..n]).is_some())
}

/// Reads and decodes a picture: PNG, JPEG, WebP, GIF, BMP, by content and not by name, turned as its EXIF says.
pub(crate) fn open(path: &Path) -> Result<Medium> {
    let shown = || format!("cannot use the picture {}", path.display());
    let bytes = std::fs::read(path).with_context(shown)?;
    let image = firelight_vision::decode(&bytes).with_context(shown)?;
    Ok(image.into())
}

/// A question about `pictures` pictures, which come first.
pub(crate) fn question(text: String, pictures: usize) -> Message {
    question_with(text, pictures, 0)
}

/// The same with sounds, which come after the pictures.
pub(crate) fn question_with(text: String, pictures: usize, sounds: usize) -> Message {
    if pictures + sounds == 0 {
        return Message::user(text);
    }
    let mut parts = vec![Part::image(); pictures];
    parts.resize(pictures + sounds, Part::audio());
    parts.push(Part::text(text));
    Message::user(Content::Parts(parts))
}

/// The files that are given, and the pictures of the folders, in order of their names.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries =
            std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|p| named_so(p))
            .collect();
        anyhow::ensure!(
            !inside.is_empty(),
            "there is no picture in {}",
            path.display()
        );
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}
