//! The models in folders: what is one, of which files, and what these say about it.

use super::models::{Model, Origin, about_entry, slug};
use anyhow::{Context, Result, bail};
use firelight_runtime::catalogue::Catalogue;
use firelight_runtime::checkpoint::{Checkpoint, Config};
use firelight_runtime::models;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};

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
                .filter_map(|(_, origin)| origin.path())
                .any(|path| path.file_name() == Some(name.as_os_str()))
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
            "--dir {}: no model in it; expected .gguf files, or config.json with .safetensors files or model.bin",
            dir.display()
        );
    }
    Ok(models)
}

/// A folder in the Hugging Face layout is one model, else each `.gguf` is.
fn add(dir: &Path, catalogue: &Catalogue, into: &mut Vec<Model>) -> Result<()> {
    // `model.bin`: CTranslate2's layout, of speech models.
    let ct2 = |p: &PathBuf| file_name(p).is_some_and(|n| n == "model.bin");
    let weights = |p: &PathBuf| extension(p) == "safetensors" || ct2(p);
    let all = entries(dir)?;
    if !dir.join("config.json").is_file() || !all.iter().any(weights) {
        into.extend(ggufs(dir, catalogue)?);
        return Ok(());
    }
    let wanted = |p: &&PathBuf| {
        let known = ["json", "safetensors", "jinja", "model"].contains(&extension(p));
        p.is_file() && (known || ct2(p))
    };
    let mut files: Vec<(String, Origin)> = all
        .iter()
        .filter(wanted)
        .filter_map(|p| Some((file_name(p)?, Origin::Disk(p.clone()))))
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
            models[i].files.push((file, Origin::Disk(path)));
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
        models.push(Model::new(&name, vec![(file, Origin::Disk(path))], about));
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
    let hears = |f: &String| models::speech_families().any(|name| name == f);
    let task = match family.as_ref() {
        Some(f) if hears(f) => "transcribe",
        _ if template => "chat",
        _ => "text",
    };
    json!({ "family": family, "context": context, "task": task })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_split_file() {
        assert_eq!(split_prefix("a-b-00001-of-00003.gguf"), Some("a-b"));
        for name in [
            "a-1-of-3.gguf",
            "a.gguf",
            "a-00001-of-00003.bin",
            "-of-.gguf",
        ] {
            assert_eq!(split_prefix(name), None, "{name}");
        }
    }
}
