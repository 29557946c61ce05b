//! Which files of a repository make a model.
use crate::source::{Error, Result};

/// The files to fetch and what to load.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) files: Vec<String>,
    /// A file, or a folder (the repository itself is the empty name).
    pub(super) root: String,
}

/// Chooses among `names`: the file asked for (all parts of a split GGUF); or of the folder asked for, or of the repository,
/// the safetensors weights with configuration and tokenizer; or its only GGUF, or the Q4_K_M among several.
pub(super) fn choose(repo: &str, names: &[String], wanted: Option<&str>) -> Result<Chosen> {
    let folder = match wanted {
        Some(file) if names.iter().any(|n| n == file) => {
            return Ok(Chosen {
                files: with_parts(file, names),
                root: file.to_owned(),
            });
        }
        Some(folder) => folder.trim_end_matches('/'),
        None => "",
    };
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let inside = names
        .iter()
        .filter_map(|n| n.strip_prefix(&prefix))
        .filter(|n| !n.contains('/'));
    let inside = inside.map(str::to_owned).collect::<Vec<_>>();
    let full = |n: &String| format!("{prefix}{n}");
    let weights = safetensors(&inside);
    if !weights.is_empty() {
        let side = inside.iter().filter(|n| is_side_file(n));
        let files = weights.iter().chain(side).map(full).collect();
        return Ok(Chosen {
            files,
            root: folder.to_owned(),
        });
    }
    let firsts = inside
        .iter()
        .filter(|n| is_model_gguf(n))
        .collect::<Vec<_>>();
    let q4 = firsts
        .iter()
        .filter(|n| n.to_ascii_lowercase().contains("q4_k_m"));
    let q4 = q4.copied().collect::<Vec<_>>();
    match (firsts.as_slice(), q4.as_slice()) {
        ([only], _) | (_, [only]) => {
            let root = full(only);
            Ok(Chosen {
                files: with_parts(&root, names),
                root,
            })
        }
        (several, _) => {
            let list = if several.is_empty() {
                &names.iter().collect()
            } else {
                &firsts
            };
            let list = list
                .iter()
                .take(40)
                .map(|n| n.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            let expected = if several.is_empty() {
                "a .safetensors or .gguf file in it"
            } else {
                "the name of one of its GGUF files, as in hf:OWNER/REPO/FILE"
            };
            let what = match wanted {
                Some(file) => format!("{file} in repository {repo}"),
                None => format!("repository {repo}"),
            };
            Err(Error::InvalidInput {
                what,
                expected: expected.into(),
                got: list,
            })
        }
    }
}

/// Whether all parts of every split file are in the list (a cached snapshot may hold some).
pub(super) fn shards_complete(files: &[String]) -> bool {
    let sharded = |f: &&String| split_name(f).is_some();
    files.iter().filter(sharded).all(|f| {
        split_name(f).is_some_and(|(stem, _, count, ext)| {
            (1..=count).all(|i| files.iter().any(|g| *g == part_name(stem, i, count, ext)))
        })
    })
}

fn safetensors(inside: &[String]) -> Vec<String> {
    let has = |name: &str| inside.iter().any(|n| n == name);
    let all = inside.iter().filter(|n| n.ends_with(".safetensors"));
    let pick = all.filter(|n| {
        if has("model.safetensors.index.json") {
            split_name(n).is_some_and(|(stem, ..)| stem == "model")
        } else if has("model.safetensors") {
            *n == "model.safetensors"
        } else {
            !n.starts_with("consolidated")
        }
    });
    pick.cloned().collect()
}

/// Configuration, tokenizer and template beside the weights.
fn is_side_file(name: &str) -> bool {
    let index = name.ends_with(".index.json") && name != "model.safetensors.index.json";
    let text = ["vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"];
    (name.ends_with(".json") && !index) || name.ends_with(".jinja") || text.contains(&name)
}

/// A GGUF with a language model in it, or the first part of one.
fn is_model_gguf(name: &str) -> bool {
    let first = split_name(name).is_none_or(|(_, part, ..)| part == 1);
    name.ends_with(".gguf") && !name.to_ascii_lowercase().contains("mmproj") && first
}

/// All parts of a split file that are listed, or the file alone.
fn with_parts(file: &str, names: &[String]) -> Vec<String> {
    match split_name(file) {
        Some((stem, _, count, ext)) if ext == "gguf" => (1..=count)
            .map(|i| part_name(stem, i, count, ext))
            .filter(|p| names.contains(p))
            .collect(),
        _ => vec![file.to_owned()],
    }
}

/// Taken apart: `STEM-00001-of-00003.EXT`.
pub(crate) fn split_name(name: &str) -> Option<(&str, u32, u32, &str)> {
    let (rest, ext) = name.rsplit_once('.')?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let number = |s: &str| (s.len() == 5).then(|| s.parse::<u32>().ok()).flatten();
    Some((stem, number(part)?, number(count)?, ext))
}

pub(crate) fn part_name(stem: &str, part: u32, count: u32, ext: &str) -> String {
    format!("{stem}-{part:05}-of-{count:05}.{ext}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], wanted: Option<&str>) -> Result<Chosen> {
        choose(
            "o/r",
            &names.iter().map(|n| n.to_string()).collect::<Vec<_>>(),
            wanted,
        )
    }

    #[test]
    fn safetensors_with_what_belongs_to_them() {
        let names = [
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tokenizer.json",
        ];
        let c = pick(&names, None).unwrap();
        let expected = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "config.json",
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(
            (c.files.as_slice(), c.root.as_str()),
            (&expected.map(str::to_owned)[..], "")
        );
        assert!(shards_complete(&c.files));
        assert!(!shards_complete(&c.files[1..]));
    }

    #[test]
    fn gguf_by_name_alone_or_q4_k_m() {
        let several = ["a-Q8_0.gguf", "a-Q4_K_M.gguf", "mmproj-f16.gguf"];
        assert_eq!(pick(&several, None).unwrap().root, "a-Q4_K_M.gguf");
        assert_eq!(
            pick(&several, Some("a-Q8_0.gguf")).unwrap().files,
            ["a-Q8_0.gguf"]
        );
        assert_eq!(pick(&several[..1], None).unwrap().root, "a-Q8_0.gguf");
        let split = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
        assert_eq!(pick(&split, Some(split[0])).unwrap().files, split);
        let folder = pick(&split, Some("q")).unwrap();
        assert_eq!(
            (folder.files.as_slice(), folder.root.as_str()),
            (&split.map(str::to_owned)[..], split[0])
        );
    }

    #[test]
    fn no_choice_lists_what_there_is() {
        let e = pick(&["a-Q8_0.gguf", "a-Q2_K.gguf"], None)
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("a-Q2_K.gguf") && e.contains("hf:OWNER/REPO/FILE"),
            "{e}"
        );
        let e = pick(&["model.bin"], None).unwrap_err().to_string();
        assert!(e.contains("model.bin") && e.contains(".safetensors"), "{e}");
        assert!(pick(&[], None).is_err());
        assert!(
            pick(&["a.gguf"], Some("b.gguf"))
                .unwrap_err()
                .to_string()
                .contains("b.gguf")
        );
    }
}
