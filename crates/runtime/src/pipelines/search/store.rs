//! The index's file: `vectors` f32 `[N, D]` and `files` u8, a JSON list of what each is of.

use super::Entry;
use crate::{Error, Result};
use firelight_tensor::{DType, Tensor, Weights, safetensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the file says it is.
const FORMAT: &str = "firelight-pictures-1";

/// A line of the file's list.
#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    size: u64,
    modified: u64,
    sha256: String,
    /// Row of `vectors`.
    row: Option<usize>,
    error: Option<String>,
}

/// Why there is nothing to go on from.
pub(super) enum Unusable {
    Missing,
    Because(String),
    Io(Error),
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

/// The entries of a file, if they are this model's.
pub(super) fn load(file: &Path, model: &str, dims: usize) -> Result<Vec<Entry>, Unusable> {
    match std::fs::metadata(file) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Unusable::Missing),
        Err(e) => return Err(Unusable::Io(io(file, e))),
    }
    let broken =
        |why: String| Unusable::Because(format!("{} cannot be used: {why}", file.display()));
    let weights = Weights::open_path(file).map_err(|e| broken(e.to_string()))?;
    let meta = weights.safetensors_metadata();
    let text = |key: &str| {
        let found = meta.and_then(|m| m.get(key));
        found.map(String::as_str).unwrap_or_default()
    };
    if text("format") != FORMAT {
        return Err(broken("it is no index of pictures".to_owned()));
    }
    if text("model") != model {
        return Err(Unusable::Because(format!(
            "{} is of another model",
            file.display()
        )));
    }
    let files = weights.read("files").map_err(|e| broken(e.to_string()))?;
    let lines: Vec<Line> =
        serde_json::from_slice(files.bytes()).map_err(|e| broken(e.to_string()))?;
    let vectors = match weights.info("vectors") {
        None => Vec::new(),
        Some(_) => weights
            .read("vectors")
            .and_then(|t| t.to_f32_vec())
            .map_err(|e| broken(e.to_string()))?,
    };
    let entry = |line: Line| {
        let vector = match (line.row, line.error) {
            (Some(row), _) => {
                let start = row.checked_mul(dims)?;
                let vector = vectors.get(start..start.checked_add(dims)?)?;
                if vector.iter().any(|v| !v.is_finite()) {
                    return None;
                }
                Ok(Arc::from(vector))
            }
            (None, why) => Err(why?),
        };
        Some(Entry {
            path: line.path,
            size: line.size,
            modified: line.modified,
            sha256: line.sha256,
            vector,
        })
    };
    let entries: Option<Vec<Entry>> = lines.into_iter().map(entry).collect();
    entries.ok_or_else(|| broken("its list and its vectors do not fit together".to_owned()))
}

/// Writes the file: beside its place first, so that a half-written one never has the name.
pub(super) fn save(file: &Path, model: &str, dims: usize, entries: &[Entry]) -> Result<()> {
    let (mut lines, mut vectors, mut rows) = (Vec::new(), Vec::new(), 0);
    for e in entries {
        let row = e.vector.as_ref().ok().map(|vector| {
            vectors.extend_from_slice(vector);
            rows += 1;
            rows - 1
        });
        lines.push(Line {
            path: e.path.clone(),
            size: e.size,
            modified: e.modified,
            sha256: e.sha256.clone(),
            row,
            error: e.vector.as_ref().err().cloned(),
        });
    }
    let files = serde_json::to_vec(&lines)
        .map_err(|e| Error::invalid(format!("the list of an index: {e}")))?;
    let meta = [("format", FORMAT), ("model", model)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let meta = BTreeMap::from(meta);
    let files = Tensor::new(DType::U8, &[files.len()], files)?;
    let tensor = match rows {
        0 => None,
        _ => Some(Tensor::from_f32(&vectors, &[rows, dims])?),
    };
    let vectors = tensor.iter().map(|t| ("vectors", t));
    let tensors = vectors.chain([("files", &files)]);
    let bytes = safetensors::write_to_vec(&meta, tensors)?;
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
    }
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    std::fs::write(&part, bytes).map_err(|e| io(&part, e))?;
    std::fs::rename(&part, file).map_err(|e| io(file, e))
}
