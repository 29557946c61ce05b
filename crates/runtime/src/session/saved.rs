//! What a session has read, kept in a file: the next run of the program goes on from there instead of reading it again.
//!
//! The file is safetensors: the ids, what [`crate::cache`] holds of them, and in its metadata what they were computed with. It is used
//! only by the same model on the same kind of device, since others would have computed something else.

use super::Session;
use crate::cache::saved::{Reach, damaged};
use crate::engine::Engine;
use crate::media::FIRST_SOFT;
use crate::source::disk;
use crate::{Error, LoadedModel, Result};
use firelight_kernels::DType;
use firelight_tensor::{FileSource, SafeTensors, Tensor, safetensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

/// What the metadata's `format` says.
const FORMAT: &str = "firelight-prompt-cache-1";
/// Bytes of each tensor that stand for it in a model's mark: some from its beginning, its middle and its end.
const SAMPLE: usize = 64;

impl Session {
    /// Writes what has been read of the conversation so far to a file, which only its owner may read: it holds the whole text, as ids.
    /// A file that is there is replaced once the new one is whole. Returns how many tokens the file holds; 0: there was nothing to keep,
    /// and no file was written.
    ///
    /// # Errors
    /// `Unsupported` for conversations with pictures, sounds or adapters; `Io`; `Device` if the device failed.
    pub async fn save_prompt_cache(&mut self, path: &Path) -> Result<usize> {
        let (ids, reach, mut tensors) = self.state.save().await?;
        if reach.held == 0 {
            return Ok(0);
        }
        if !self.model.checkpoint.merged().is_empty() {
            return Err(Error::Unsupported(
                "a prompt cache of a model with adapters".to_owned(),
            ));
        }
        let ids = &ids[..reach.held];
        if ids.iter().any(|&id| id >= FIRST_SOFT) {
            return Err(Error::Unsupported(
                "a prompt cache of a conversation with pictures or sounds".to_owned(),
            ));
        }
        let words: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        tensors.push((
            "ids".to_owned(),
            Tensor::new(DType::U32, &[ids.len()], words)?,
        ));
        let mut metadata = BTreeMap::from([("format".to_owned(), FORMAT.to_owned())]);
        metadata.insert(
            "made_with".to_owned(),
            made_with(&self.engine, &self.model)?,
        );
        let reach_text = serde_json::to_string(&reach).map_err(|e| damaged(e.to_string()))?;
        metadata.insert("reach".to_owned(), reach_text);
        metadata.insert(
            "sha256".to_owned(),
            digest(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))),
        );
        let temporary = disk::append(path, ".new");
        let write = || -> std::io::Result<BufWriter<std::fs::File>> {
            let mut how = std::fs::OpenOptions::new();
            how.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
            Ok(BufWriter::new(how.open(&temporary)?))
        };
        let mut file = write().map_err(|e| io(&temporary, e))?;
        let written = safetensors::write(
            &mut file,
            &metadata,
            tensors.iter().map(|(n, t)| (n.as_str(), t)),
        );
        drop(file);
        let written = written.map_err(Error::from);
        let renamed =
            written.and_then(|()| std::fs::rename(&temporary, path).map_err(|e| io(path, e)));
        if renamed.is_err() {
            // Half a file is nobody's.
            drop(std::fs::remove_file(&temporary));
        }
        renamed.map(|()| reach.held)
    }

    /// Goes on from what [`Session::save_prompt_cache`] wrote: of the next prompt, what begins as the file's text does is not computed
    /// again. Replaces what the session held. Returns the file's tokens.
    ///
    /// # Errors
    /// `Malformed` for a file of another kind or a damaged one, `Unsupported` for one of another model, device or setting: the session then
    /// starts from nothing; `Io`; `Device` if memory runs out.
    pub async fn load_prompt_cache(&mut self, path: &Path) -> Result<usize> {
        self.state.clear();
        let file = FileSource::open(path).and_then(|f| SafeTensors::open(Arc::new(f)));
        let file = file.map_err(|e| match e {
            firelight_tensor::Error::Io { source, .. } => io(path, source),
            other => damaged(format!("{} is none, or not whole: {other}", path.display())),
        })?;
        let metadata = file.metadata();
        let told = |key: &str| metadata.get(key).map_or("", String::as_str);
        if told("format") != FORMAT {
            return Err(damaged(format!(
                "{} is a file of another kind",
                path.display()
            )));
        }
        if told("made_with") != made_with(&self.engine, &self.model)? {
            return Err(Error::Unsupported(
                "a prompt cache that another model, device, type or setting made".to_owned(),
            ));
        }
        let reach: Reach =
            serde_json::from_str(told("reach")).map_err(|e| damaged(e.to_string()))?;
        let tensors = file
            .tensors()
            .iter()
            .map(|t| Ok((t.name.clone(), file.read(&t.name)?)));
        let tensors = tensors.collect::<Result<BTreeMap<_, _>>>()?;
        if told("sha256") != digest(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))) {
            return Err(damaged(format!(
                "{} was changed since it was written",
                path.display()
            )));
        }
        let ids = tensors
            .get("ids")
            .filter(|t| t.dtype() == DType::U32 && t.elements() == reach.held);
        let ids = ids.ok_or_else(|| damaged("no ids, or not as many as positions".to_owned()))?;
        let ids = ids
            .bytes()
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect();
        self.state.restore(ids, &reach, &tensors)?;
        Ok(reach.held)
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

/// Of names, shapes and bytes, in the order of the names.
fn digest<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> String {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update(format!("{name} {} {:?}\n", tensor.dtype(), tensor.shape()));
        hash.update(tensor.bytes());
    }
    disk::hex(&hash.finalize())
}

/// What decides the numbers in a cache: the weights (a sample of each), their types here, the device and how it computes.
fn made_with(engine: &Engine, model: &LoadedModel) -> Result<String> {
    let checkpoint = &model.checkpoint;
    let weights = checkpoint.weights();
    let mut hash = Sha256::new();
    for info in weights.tensors() {
        hash.update(format!("{} {} {:?}\n", info.name, info.dtype, info.shape));
        let len = info.nbytes;
        let mut sample = [0u8; SAMPLE];
        for start in [0, len / 2, len.saturating_sub(SAMPLE)] {
            let there = SAMPLE.min(len - start);
            weights.read_part(&info.name, start, &mut sample[..there])?;
            hash.update(&sample[..there]);
        }
    }
    let options = engine.options();
    Ok(format!(
        "{} {} weights {} {:?} caches {} {:?} exact {} fast {} {:?}",
        env!("CARGO_PKG_VERSION"),
        engine.report().rung.name(),
        disk::hex(&hash.finalize()),
        checkpoint.dtypes(),
        model.device.cache_dtype(),
        model.model.spec().context,
        options.exact,
        options.fast,
        model.device.caps().tuning,
    ))
}
