//! The models of a site: which there are, and their manifests.

use super::path::percent_encoded;
use super::site::{Content, hex, stamp};
use firelight_runtime::catalogue::{Entry, FileSpec, SourceSpec};
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

/// Where a file of a model is.
#[derive(Clone)]
pub(crate) enum Origin {
    /// On this disk.
    Disk(PathBuf),
    /// In this program.
    Program(&'static [u8]),
}

impl Origin {
    /// The file, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Origin::Disk(path) => Some(path),
            Origin::Program(_) => None,
        }
    }

    /// As the site's table has it.
    pub(crate) fn content(&self) -> Content {
        match self {
            Origin::Disk(path) => Content::File(path.clone()),
            Origin::Program(bytes) => Content::Embedded(bytes),
        }
    }

    /// Another text when the content was changed.
    fn stamp(&self) -> io::Result<String> {
        match self {
            Origin::Disk(path) => Ok(stamp(&File::open(path)?)?.1),
            Origin::Program(_) => Ok(String::new()),
        }
    }

    fn hashed(&self) -> io::Result<Hashed> {
        match self {
            Origin::Disk(path) => hashed(File::open(path)?),
            Origin::Program(bytes) => hashed(*bytes),
        }
    }
}

/// A model that the site offers.
pub(crate) struct Model {
    /// Its folder's name under `models/`.
    pub(crate) name: String,
    /// Names under that folder and where they are; the one to load first.
    pub(crate) files: Vec<(String, Origin)>,
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
    pub(crate) fn new(name: &str, files: Vec<(String, Origin)>, about: Value) -> Self {
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
        let file = |((name, _), h): (&(String, Origin), Hashed)| {
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
            .map(|(_, origin)| origin.stamp())
            .collect::<io::Result<Vec<_>>>()?;
        if let Some((_, hashes)) = made.as_ref().filter(|(of, _)| *of == stamps) {
            return Ok(hashes.clone());
        }
        let hashes = self
            .files
            .iter()
            .map(|(_, origin)| origin.hashed())
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

fn hashed(mut file: impl Read) -> io::Result<Hashed> {
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

/// The catalogue's models that need no download: on this disk, or in this program.
pub(crate) fn cached(list: &[CatalogueStatus]) -> Vec<Model> {
    let model = |s: &CatalogueStatus| {
        let root = s.path.as_ref().filter(|_| s.cached);
        // One file is its own root, several are in it.
        let on_disk = |f: &FileSpec| {
            let root = root?;
            let path = match root.is_file() {
                true => root.clone(),
                false => root.join(&f.name),
            };
            Some(Origin::Disk(path))
        };
        let files = s.entry.files.iter().map(|f| {
            let origin = in_program(f).or_else(|| on_disk(f))?;
            Some((f.name.clone(), origin))
        });
        let files = files.collect::<Option<Vec<_>>>()?;
        Some(Model::new(&s.entry.name, files, about_entry(&s.entry)))
    };
    list.iter().filter_map(model).collect()
}

fn in_program(file: &FileSpec) -> Option<Origin> {
    file.sources.iter().find_map(|source| match source {
        SourceSpec::Embedded(content) => Some(Origin::Program(content.0)),
        _ => None,
    })
}

/// What the catalogue knows of a model.
pub(crate) fn about_entry(e: &Entry) -> Value {
    json!({
        "task": e.task, "family": e.family, "context": e.context, "licence": e.licence, "licence_url": e.licence_url, "notes": e.notes,
    })
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

/// A name for an address: lower case, digits and `-._`.
pub(crate) fn slug(path: &Path) -> String {
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
        let model = Model::new(
            "m",
            vec![("a b.gguf".into(), Origin::Disk(path.clone()))],
            about,
        );
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
