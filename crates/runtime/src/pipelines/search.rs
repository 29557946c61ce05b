//! The pictures of a folder by what is on them: "red bicycle".
//!
//! ```no_run
//! # async fn f() -> firelight_runtime::Result<()> {
//! use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder};
//! use firelight_runtime::pipelines::search::PictureIndex;
//! use firelight_runtime::{CancelToken, Engine, EngineOptions};
//!
//! let engine = Engine::new(EngineOptions::default()).await?;
//! let embedder = Embedder::load(&engine, "siglip-base-patch16-224", &mut |_, _| ()).await?;
//! let mut index = PictureIndex::open("photos.index", "photos", &embedder.model())?;
//! index.update(&embedder, &CancelToken::new(), &mut |_, _| ()).await?;
//! let query = embedder.embed(&["red bicycle"], &EmbedOptions::default()).await?.vectors();
//! for hit in index.search(&query[0], 5) {
//!     println!("{:.3} {}", hit.similarity, hit.path);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The index is one safetensors file: `vectors` f32 `[N, D]` of length 1, and beside them which files they are of. A file is looked at
//! again when its size or time changed, and encoded again when its content did; a moved file is known by its content.

mod store;

use super::feed;
use crate::encoder::LoadedEncoder;
use crate::pipelines::embed::{Embedder, cosine};
use crate::pipelines::pictures::PictureOptions;
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_tensor::Tensor;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Extensions of the files that are looked at.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// New pictures after which the index is saved, so that little is lost if the program ends.
const SAVE_AFTER: usize = 1000;

/// The largest picture file that is read.
const MAX_FILE: u64 = 1 << 30;

/// A file that the index knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Path below the folder, with `/` between its parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
    /// SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// `[D]` of length 1, or why there is none.
    pub vector: Result<Arc<[f32]>, String>,
}

/// What [`PictureIndex::update`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Update {
    /// Pictures that are in the index now.
    pub pictures: usize,
    /// Of them: encoded now.
    pub encoded: usize,
    /// Files that cannot be used; [`PictureIndex::failed`] names them.
    pub failed: usize,
    /// Files that are gone.
    pub removed: usize,
}

/// A picture that was found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Hit {
    /// Path below the folder.
    pub path: String,
    /// The cosine between picture and query.
    pub similarity: f32,
}

/// The vectors of a folder's pictures. See the module's head.
#[derive(Clone, Debug)]
pub struct PictureIndex {
    file: PathBuf,
    root: PathBuf,
    model: String,
    dims: usize,
    entries: Vec<Entry>,
    discarded: Option<String>,
}

/// A file of the folder.
struct Found {
    path: String,
    size: u64,
    modified: u64,
}

/// What became of a file on the host.
enum Read {
    /// Its content is that of an entry.
    Known(usize),
    New(String, Result<Tensor, String>),
    Unreadable(String),
}

impl PictureIndex {
    /// The index in `file` of the folder `root`, made with `model`; an empty one if there is none yet, or it is another model's or
    /// folder's ([`PictureIndex::discarded`] says so). Nothing is written before [`PictureIndex::update`].
    ///
    /// # Errors
    /// `Unsupported` for a model that reads texts alone, `Io` if `root` is no folder or `file` cannot be read.
    pub fn open(
        file: impl Into<PathBuf>,
        root: impl Into<PathBuf>,
        model: &LoadedEncoder,
    ) -> Result<Self> {
        let (file, root) = (file.into(), root.into());
        let dims = model.sees()?.spec().dims;
        if !root.is_dir() {
            return Err(Error::invalid(format!(
                "{} is no folder; name one with pictures in it",
                root.display()
            )));
        }
        let mut index = PictureIndex {
            file,
            root,
            model: fingerprint(model)?,
            dims,
            entries: Vec::new(),
            discarded: None,
        };
        match store::load(&index.file, &index.model, dims) {
            Ok(entries) => index.entries = entries,
            Err(store::Unusable::Missing) => {}
            Err(store::Unusable::Because(why)) => index.discarded = Some(why),
            Err(store::Unusable::Io(e)) => return Err(e),
        }
        Ok(index)
    }

    /// Why what was in the file could not be used, if so: it is made anew.
    pub fn discarded(&self) -> Option<&str> {
        self.discarded.as_deref()
    }

    /// Every file, in the order of their paths.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Files that cannot be used, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter_map(|e| Some((e.path.as_str(), e.vector.as_ref().err()?.as_str())))
    }

    /// Brings the index up to date with the folder and saves it; also when it is cancelled, with what is done. `progress` gets files
    /// looked at and files to look at.
    ///
    /// # Errors
    /// `Io` if the folder cannot be listed or the index not be written, `Cancelled`, or what the device gives.
    pub async fn update(
        &mut self,
        embedder: &Embedder,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Update> {
        let found = list(&self.root)?;
        let mut old: HashMap<String, Entry> = self
            .entries
            .drain(..)
            .map(|e| (e.path.clone(), e))
            .collect();
        let (mut kept, mut changed) = (Vec::new(), Vec::new());
        for file in found {
            let same = |e: &Entry| {
                e.size == file.size && e.modified == file.modified && file.modified != 0
            };
            match old.get(&file.path).is_some_and(same) {
                true => kept.extend(old.remove(&file.path)),
                false => changed.push(file),
            }
        }
        self.entries = kept;
        // What is left is gone, changed, or moved: its vectors may serve again. What stayed may have been copied.
        let again = changed.iter().filter(|f| old.contains_key(&f.path)).count();
        let removed = old.len() - again;
        let rest: Vec<Entry> = self
            .entries
            .iter()
            .cloned()
            .chain(old.into_values())
            .collect();
        let mut update = Update {
            removed,
            ..Update::default()
        };
        let result = self
            .encode(embedder, (changed, rest), cancel, progress, &mut update)
            .await;
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        let dirty = update != Update::default() || self.discarded.is_some() || again > 0;
        if dirty || !self.file.exists() {
            store::save(&self.file, &self.model, self.dims, &self.entries)?;
            self.discarded = None;
        }
        update.failed = self.failed().count();
        update.pictures = self.entries.len() - update.failed;
        result.map(|()| update)
    }

    /// Looks at `changed` files; `known` are entries whose vectors may serve.
    async fn encode(
        &mut self,
        embedder: &Embedder,
        (changed, known): (Vec<Found>, Vec<Entry>),
        cancel: &CancelToken,
        progress: &mut dyn FnMut(usize, usize),
        update: &mut Update,
    ) -> Result<()> {
        let model = embedder.model();
        let batch = embedder.run().batch_pictures()?;
        let by_content: HashMap<String, usize> = known
            .iter()
            .enumerate()
            .map(|(i, e)| (e.sha256.clone(), i))
            .collect();
        let paths: Vec<PathBuf> = changed.iter().map(|f| self.root.join(&f.path)).collect();
        let total = changed.len();
        let mut changed: Vec<Option<Found>> = changed.into_iter().map(Some).collect();
        let work = feed::start(total, batch, move |i| {
            read(&paths[i], &by_content, |image| model.prepare(image))
        });
        let options = PictureOptions {
            cancel: cancel.clone(),
            ..PictureOptions::default()
        };
        let (mut done, mut since) = (0, 0);
        let entry = |file: Found, sha256, vector| Entry {
            path: file.path,
            size: file.size,
            modified: file.modified,
            sha256,
            vector,
        };
        loop {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (mut waiting, mut tensors) = (Vec::new(), Vec::new());
            while tensors.len() < batch {
                let Ok((i, read)) = work.recv() else { break };
                let Some(file) = changed.get_mut(i).and_then(Option::take) else {
                    continue;
                };
                match read {
                    Read::New(sha256, Ok(tensor)) => {
                        waiting.push((file, sha256));
                        tensors.push(tensor);
                        continue;
                    }
                    Read::New(sha256, Err(why)) => {
                        self.entries.push(entry(file, sha256, Err(why)));
                    }
                    Read::Known(at) => {
                        let twin = &known[at];
                        let vector = twin.vector.clone();
                        self.entries.push(entry(file, twin.sha256.clone(), vector));
                    }
                    // Its time is not kept, so that it is tried again.
                    Read::Unreadable(why) => {
                        let file = Found {
                            modified: 0,
                            ..file
                        };
                        self.entries.push(entry(file, String::new(), Err(why)));
                    }
                }
                done += 1;
                progress(done, total);
            }
            if tensors.is_empty() {
                return Ok(());
            }
            let vectors = embedder.embed_prepared(&tensors, &options).await?;
            for ((file, sha256), vector) in waiting.into_iter().zip(vectors) {
                self.entries.push(entry(file, sha256, Ok(vector.into())));
                update.encoded += 1;
                (done, since) = (done + 1, since + 1);
                progress(done, total);
            }
            if since >= SAVE_AFTER {
                since = 0;
                store::save(&self.file, &self.model, self.dims, &self.entries)?;
            }
        }
    }

    /// The `k` pictures closest to a vector, the closest first; equally close ones in the order of their paths.
    pub fn search(&self, query: &[f32], k: usize) -> Vec<Hit> {
        let all = self.entries.iter().filter_map(|e| {
            let vector = e.vector.as_ref().ok()?;
            Some((cosine(query, vector), e))
        });
        let mut all: Vec<(f32, &Entry)> = all.collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.path.cmp(&b.1.path)));
        let best = all.into_iter().take(k);
        best.map(|(similarity, e)| Hit {
            path: e.path.clone(),
            similarity,
        })
        .collect()
    }
}

/// Reads one file: known content needs no decoding.
fn read(
    path: &Path,
    known: &HashMap<String, usize>,
    prepare: impl Fn(&firelight_vision::Image) -> Result<Tensor>,
) -> Read {
    let bytes = match std::fs::metadata(path).map(|m| m.len()) {
        Ok(size) if size > MAX_FILE => {
            return Read::Unreadable(format!("the file has more than {MAX_FILE} bytes"));
        }
        Ok(_) => std::fs::read(path),
        Err(e) => Err(e),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(e) => return Read::Unreadable(e.to_string()),
    };
    let sha256 = hex(&Sha256::digest(&bytes));
    if let Some(&at) = known.get(&sha256) {
        return Read::Known(at);
    }
    let tensor = firelight_vision::decode(&bytes)
        .map_err(Error::from)
        .and_then(|image| prepare(&image));
    Read::New(sha256, tensor.map_err(|e| e.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What tells one model's vectors from another's: its configuration, and how each tensor begins.
fn fingerprint(model: &LoadedEncoder) -> Result<String> {
    let checkpoint = &model.checkpoint;
    let mut hash = Sha256::new();
    for name in [
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ] {
        hash.update(checkpoint.side_file(name)?.unwrap_or_default());
        hash.update([0]);
    }
    hash.update(format!("{:?}", checkpoint.dtypes()));
    let weights = checkpoint.weights();
    let mut start = [0u8; 64];
    for info in weights.tensors() {
        hash.update(format!(
            "{} {} {:?}",
            info.name,
            info.dtype,
            info.shape.dims()
        ));
        let n = info.nbytes.min(start.len());
        weights.read_part(&info.name, 0, &mut start[..n])?;
        hash.update(&start[..n]);
    }
    Ok(hex(&hash.finalize()))
}

/// The picture files below a folder by their extensions, in the order of their paths; hidden ones and links to folders are left out.
fn list(root: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A folder inside that may not be read is no reason to find nothing.
            Err(_) if !prefix.is_empty() => continue,
            Err(source) => {
                return Err(Error::Io {
                    path: folder.display().to_string(),
                    source,
                });
            }
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
                continue;
            }
            let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
            if !EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
                continue;
            }
            // Of a link, what it leads to.
            let Ok(meta) = std::fs::metadata(entry.path()) else {
                continue;
            };
            let modified = meta.modified().ok();
            let since = modified.and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
            if meta.is_file() {
                found.push(Found {
                    path,
                    size: meta.len(),
                    modified: since.map_or(0, |d| d.as_nanos() as u64),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
