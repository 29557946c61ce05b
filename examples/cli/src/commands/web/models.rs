//! The models of a site: which there are, and their manifests.

use super::path::percent_encoded;
use super::site::{hex, stamp};
use anyhow::{Context, Result, bail};
use firelight_runtime::catalogue::{Catalogue, Entry};
use firelight_runtime::checkpoint::{Checkpoint, Config};
use firelight_runtime::source::CatalogueStatus;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Every so many bytes a manifest has a hash, so that a piece can be checked, and healed, alone.
pub(crate) const CHUNK: u64 = 4 << 20;

/// A model that the site offers.
pub(crate) struct Model {
    /// Its folder's name under `models/`.
    pub(crate) name: String,
    /// Names under that folder and where they are; the one to load first.
    pub(crate) files: Vec<(String, PathBuf)>,
    about: Value,
    /// What was computed of each file, and the stamps of the files it was computed from.
    made: Mutex<Option<(Vec<String>, Vec<Hashed>)>>,
}

/// A file's length and hashes.
#[derive(Clone)]
struct Hashed {
    size: u64,
    sha256: String,
    chunks: Vec<String>,
}

impl Model {
    fn new(name: &str, files: Vec<(String, PathBuf)>, about: Value) -> Self {
        Model {
            name: name.to_owned(),
            files,
            about,
            made: Mutex::new(None),
        }
    }

    /// What a page needs to load it: name, what is known about it, and its files with addresses that begin with `prefix`. Reads
    /// all files once, and again when one has changed.
    pub(crate) fn spec(&self, prefix: &str) -> io::Result<Value> {
        let hashes = self.hashes()?;
        let file = |((name, _), h): (&(String, PathBuf), Hashed)| {
            json!({
                "name": name, "url": format!("{prefix}{}", percent_encoded(name)), "size": h.size, "sha256": h.sha256,
                "chunkSize": CHUNK, "chunks": h.chunks,
            })
        };
        let files: Vec<Value> = self.files.iter().zip(hashes).map(file).collect();
        let mut spec = json!({ "name": self.name, "files": files });
        if let (Some(spec), Value::Object(about)) = (spec.as_object_mut(), &self.about) {
            spec.extend(about.clone().into_iter().filter(|(_, v)| !v.is_null()));
        }
        Ok(spec)
    }

    fn hashes(&self) -> io::Result<Vec<Hashed>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self
            .files
            .iter()
            .map(|(_, path)| Ok(stamp(&File::open(path)?)?.1))
            .collect::<io::Result<Vec<_>>>()?;
        if let Some((_, hashes)) = made.as_ref().filter(|(of, _)| *of == stamps) {
            return Ok(hashes.clone());
        }
        let hashes = self
            .files
            .iter()
            .map(|(_, path)| hashed(path))
            .collect::<io::Result<Vec<_>>>()?;
        *made = Some((stamps, hashes.clone()));
        Ok(hashes)
    }
}

/// The list of models, as `models/index.json` has it. One whose files went away since the start is left out.
pub(crate) fn index(models: &[Arc<Model>]) -> io::Result<Vec<u8>> {
    let specs: Vec<Value> = models
        .iter()
        .filter_map(|m| m.spec(&format!("{}/", m.name)).ok())
        .collect();
    Ok(serde_json::to_vec(
        &json!({ "format": 1, "models": specs }),
    )?)
}

fn hashed(path: &Path) -> io::Result<Hashed> {
    let mut file = File::open(path)?;
    let (mut whole, mut chunks, mut size) = (Sha256::new(), Vec::new(), 0);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        file.by_ref().take(CHUNK).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        size += piece.len() as u64;
        whole.update(&piece);
        chunks.push(hex(&Sha256::digest(&piece)));
    }
    Ok(Hashed {
        size,
        sha256: hex(&whole.finalize()),
        chunks,
    })
}

/// The catalogue's models that are on this disk.
pub(crate) fn cached(list: &[CatalogueStatus]) -> Vec<Model> {
    let model = |s: &CatalogueStatus| {
        let root = s.path.as_ref().filter(|_| s.cached)?;
        // One file is its own root, several are in it.
        let files = s.entry.files.iter().map(|f| {
            let path = if root.is_file() {
                root.clone()
            } else {
                root.join(&f.name)
            };
            (f.name.clone(), path)
        });
        Some(Model::new(
            &s.entry.name,
            files.collect(),
            about_entry(&s.entry),
        ))
    };
    list.iter().filter_map(model).collect()
}

fn about_entry(e: &Entry) -> Value {
    json!({
        "task": e.task, "family": e.family, "context": e.context, "licence": e.licence, "licence_url": e.licence_url, "notes": e.notes,
    })
}

/// The models in what the user named: a `.gguf` file, a model's folder, or a folder of these.
pub(crate) fn in_folder(dir: &Path, catalogue: &Catalogue) -> Result<Vec<Model>> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("--dir {}", dir.display()))?;
    let mut models = Vec::new();
    if dir.is_file() {
        let parent = dir.parent().unwrap_or(Path::new(""));
        let name = dir.file_name().map(PathBuf::from).unwrap_or_default();
        models.extend(ggufs(parent, catalogue)?.into_iter().filter(|m| {
            m.files
                .iter()
                .any(|(_, p)| p.file_name() == Some(name.as_os_str()))
        }));
    } else {
        add(&dir, catalogue, &mut models)?;
        if models.is_empty() {
            for sub in entries(&dir)?.iter().filter(|p| p.is_dir()) {
                add(sub, catalogue, &mut models)?;
            }
        } else if !dir.join("config.json").is_file() {
            for sub in entries(&dir)?
                .iter()
                .filter(|p| p.join("config.json").is_file())
            {
                add(sub, catalogue, &mut models)?;
            }
        }
    }
    if models.is_empty() {
        bail!(
            "--dir {}: no model in it; expected .gguf files, or config.json with .safetensors files",
            dir.display()
        );
    }
    Ok(models)
}

/// A folder in the Hugging Face layout is one model, else each `.gguf` is.
fn add(dir: &Path, catalogue: &Catalogue, into: &mut Vec<Model>) -> Result<()> {
    let safetensors = |p: &PathBuf| extension(p) == "safetensors";
    let all = entries(dir)?;
    if !dir.join("config.json").is_file() || !all.iter().any(safetensors) {
        into.extend(ggufs(dir, catalogue)?);
        return Ok(());
    }
    let wanted = |p: &&PathBuf| {
        p.is_file() && ["json", "safetensors", "jinja", "model"].contains(&extension(p))
    };
    let mut files: Vec<(String, PathBuf)> = all
        .iter()
        .filter(wanted)
        .filter_map(|p| Some((file_name(p)?, p.clone())))
        .collect();
    files.sort_by_key(|(name, _)| (name != "config.json", name.clone()));
    into.push(Model::new(&slug(dir), files, about(dir)));
    Ok(())
}

/// The `.gguf` files of a folder; the parts of a split one are one model.
fn ggufs(dir: &Path, catalogue: &Catalogue) -> Result<Vec<Model>> {
    let mut models: Vec<Model> = Vec::new();
    let mut prefixes: Vec<Option<String>> = Vec::new();
    for path in entries(dir)?
        .into_iter()
        .filter(|p| p.is_file() && extension(p) == "gguf")
    {
        let Some(file) = file_name(&path) else {
            continue;
        };
        let prefix = split_prefix(&file).map(str::to_owned);
        if let Some(i) = prefix
            .as_ref()
            .and_then(|p| prefixes.iter().position(|q| q.as_ref() == Some(p)))
        {
            models[i].files.push((file, path));
            continue;
        }
        let size = path.metadata().map_or(0, |m| m.len());
        let known = catalogue.models.iter().find(|e| {
            e.files.len() == 1 && e.files.iter().any(|f| f.name == file && f.size == size)
        });
        let (name, about) = match known {
            Some(entry) => (entry.name.clone(), about_entry(entry)),
            None => (
                slug(Path::new(prefix.as_deref().unwrap_or(&file))),
                about(&path),
            ),
        };
        models.push(Model::new(&name, vec![(file, path)], about));
        prefixes.push(prefix);
    }
    Ok(models)
}

/// What the files say about themselves. A model that cannot be read is offered all the same: the page says why it does not run.
fn about(path: &Path) -> Value {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return json!({});
    };
    let family = checkpoint.model_type().ok();
    let (context, template) = match checkpoint.config() {
        Ok(Config::Json(v)) => {
            let context = ["max_position_embeddings", "n_positions"]
                .iter()
                .find_map(|k| v.get(k)?.as_u64());
            let template = ["chat_template.jinja", "tokenizer_config.json"]
                .iter()
                .any(|name| {
                    let text = checkpoint
                        .side_file(name)
                        .ok()
                        .flatten()
                        .unwrap_or_default();
                    name.ends_with("jinja") && !text.is_empty()
                        || serde_json::from_slice::<Value>(&text)
                            .is_ok_and(|v| !v["chat_template"].is_null())
                });
            (context, template)
        }
        Ok(Config::Gguf(m)) => {
            let key = format!("{}.context_length", family.as_deref().unwrap_or_default());
            let template = matches!(m.get_as::<&str>("tokenizer.chat_template"), Ok(Some(_)));
            (m.get_u64(&key).ok().flatten(), template)
        }
        Err(_) => (None, false),
    };
    json!({ "family": family, "context": context, "task": if template { "chat" } else { "text" } })
}

/// Gives every model a name of its own.
pub(crate) fn told_apart(models: Vec<Model>) -> Vec<Model> {
    let mut seen = HashSet::new();
    let named = |mut model: Model| {
        let base = model.name.clone();
        let mut n = 2;
        while !seen.insert(model.name.clone()) {
            model.name = format!("{base}-{n}");
            n += 1;
        }
        model
    };
    models.into_iter().map(named).collect()
}

/// Visible entries, by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read =
        || -> io::Result<Vec<PathBuf>> { dir.read_dir()?.map(|e| e.map(|e| e.path())).collect() };
    let mut list = read().with_context(|| format!("cannot read {}", dir.display()))?;
    list.retain(|p| file_name(p).is_some_and(|n| !n.starts_with('.')));
    list.sort();
    Ok(list)
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

fn extension(path: &Path) -> &str {
    path.extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
}

/// `name` of `name-00001-of-00003.gguf`.
fn split_prefix(file: &str) -> Option<&str> {
    let stem = file.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let digits = |t: &str| t.len() == 5 && t.bytes().all(|b| b.is_ascii_digit());
    (digits(no) && digits(count)).then_some(prefix)
}

/// A name for an address: lower case, digits and `-._`.
fn slug(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name = name.strip_suffix(".gguf").unwrap_or(&name);
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-._".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let plain = plain.trim_matches(['.', '-']);
    if plain.is_empty() {
        "model".to_owned()
    } else {
        plain.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(
            slug(Path::new("/a/My Model (v2).Q4_1.gguf")),
            "my-model--v2-.q4_1"
        );
        assert_eq!(slug(Path::new("..")), "model");
        assert_eq!(slug(Path::new("/a/..hidden")), "hidden");
        assert_eq!(split_prefix("a-b-00001-of-00003.gguf"), Some("a-b"));
        assert_eq!(split_prefix("a-1-of-3.gguf"), None);
        let twice = ["a", "a", "a-2"].map(|n| Model::new(n, Vec::new(), Value::Null));
        let names: Vec<String> = told_apart(twice.into())
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(names, ["a", "a-2", "a-2-2"]);
    }

    #[test]
    fn a_manifest_follows_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.gguf");
        std::fs::write(&path, vec![7; CHUNK as usize + 3]).unwrap();
        let about = json!({ "task": "chat", "family": null });
        let model = Model::new("m", vec![("a b.gguf".into(), path.clone())], about);
        let first = model.spec("m/").unwrap();
        assert_eq!(
            (&first["task"], first.get("family")),
            (&json!("chat"), None)
        );
        let file = &first["files"][0];
        assert_eq!(
            (&file["url"], &file["size"]),
            (&json!("m/a%20b.gguf"), &json!(CHUNK + 3))
        );
        let chunks = file["chunks"].as_array().unwrap();
        assert_eq!(
            (chunks.len(), chunks[1].as_str()),
            (2, Some(hex(&Sha256::digest([7; 3])).as_str()))
        );
        assert_ne!(file["sha256"], chunks[0]);
        std::fs::write(&path, b"").unwrap();
        let second = model.spec("").unwrap();
        assert_eq!(second["files"][0]["url"], "a%20b.gguf");
        assert_eq!(second["files"][0]["chunks"], json!([]));
        assert_eq!(second["files"][0]["sha256"], hex(&Sha256::digest(b"")));
        std::fs::remove_file(&path).unwrap();
        assert!(model.spec("").is_err());
        assert_eq!(
            index(&[Arc::new(model)]).unwrap(),
            br#"{"format":1,"models":[]}"#
        );
    }
}
