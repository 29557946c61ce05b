//! What a user types after `--model`.
use super::{Error, Result};
use crate::catalogue::{Catalogue, is_inside, is_repo};
use std::path::PathBuf;

/// Which model is meant: `NAME`, `PATH` or `hf:OWNER/REPO[/FILE][@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRef {
    /// A name of the catalogue.
    Name(String),
    /// A file or folder of this machine.
    Path(PathBuf),
    /// A hub repository, or one file or folder of it.
    Hub(HubRef),
}

/// A hub repository, or one file or folder of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRef {
    /// `OWNER/REPO`.
    pub repo: String,
    /// Path in the repository; without it the files of a model are chosen.
    pub file: Option<String>,
    /// Branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl ModelRef {
    /// Reads what a user typed. A name of the catalogue wins over a file of the same name (write `./NAME` for the file);
    /// whatever has a slash, begins with a dot or a tilde, or exists, is a path. Fails with [`Error::UnknownModel`] (with the
    /// closest name) or [`Error::InvalidInput`].
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("hf:") {
            return HubRef::parse(rest).map(Self::Hub);
        }
        if let Some(entry) = catalogue.get(text) {
            return Ok(Self::Name(entry.name.clone()));
        }
        let path = expand_home(text);
        let looks_like_path = text.starts_with(['.', '~'])
            || text.contains(['/', '\\'])
            || [".gguf", ".safetensors"].iter().any(|e| text.ends_with(e));
        if !text.is_empty() && (looks_like_path || path.exists()) {
            return Ok(Self::Path(path));
        }
        Err(catalogue.unknown(text))
    }
}

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub(hub) => write!(f, "{hub}"),
        }
    }
}

impl HubRef {
    fn parse(rest: &str) -> Result<Self> {
        let invalid = || Error::InvalidInput {
            what: "hub reference".into(),
            expected: "hf:OWNER/REPO[/FILE][@REVISION]".into(),
            got: format!("hf:{rest}"),
        };
        let (path, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let mut parts = path.splitn(3, '/');
        let (Some(owner), Some(repo)) = (parts.next(), parts.next()) else {
            return Err(invalid());
        };
        let repo = format!("{owner}/{repo}");
        let file = parts
            .next()
            .filter(|f| !f.is_empty())
            .map(|f| f.trim_end_matches('/'));
        if !is_repo(&repo) || !is_inside(revision) || file.is_some_and(|f| !is_inside(f)) {
            return Err(invalid());
        }
        Ok(Self {
            repo,
            file: file.map(str::to_owned),
            revision: revision.to_owned(),
        })
    }
}

impl std::fmt::Display for HubRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// A leading `~/` that no shell replaced (as in `--model=~/m.gguf`).
fn expand_home(text: &str) -> PathBuf {
    match text.strip_prefix("~/").zip(std::env::home_dir()) {
        Some((rest, home)) => home.join(rest),
        None => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelRef> {
        ModelRef::parse(text, &Catalogue::builtin().unwrap())
    }

    #[test]
    fn all_forms() {
        assert_eq!(
            parse("SmolLM2").unwrap(),
            ModelRef::Name("smollm2-135m-instruct".into())
        );
        assert_eq!(parse("./x").unwrap(), ModelRef::Path("./x".into()));
        assert_eq!(parse("m.gguf").unwrap(), ModelRef::Path("m.gguf".into()));
        assert_eq!(parse("a/b").unwrap(), ModelRef::Path("a/b".into()));
        let hub = |repo: &str, file: Option<&str>, revision: &str| {
            ModelRef::Hub(HubRef {
                repo: repo.into(),
                file: file.map(str::to_owned),
                revision: revision.into(),
            })
        };
        assert_eq!(parse("hf:o/r").unwrap(), hub("o/r", None, "main"));
        assert_eq!(parse("hf:o/r@v1").unwrap(), hub("o/r", None, "v1"));
        assert_eq!(
            parse("hf:o/r/d/f.gguf").unwrap(),
            hub("o/r", Some("d/f.gguf"), "main")
        );
        let pr = "hf:o/r/f@refs/pr/1";
        assert_eq!(parse(pr).unwrap(), hub("o/r", Some("f"), "refs/pr/1"));
        assert_eq!(parse(pr).unwrap().to_string(), pr);
    }

    #[test]
    fn bad_forms_say_what_was_expected() {
        for bad in [
            "hf:",
            "hf:o",
            "hf:o/",
            "hf:/r",
            "hf:../r",
            "hf:o/r/../x",
            "hf:o/r@",
            "hf:o/r@../x",
            "hf:o r/x",
        ] {
            let e = parse(bad).unwrap_err();
            assert!(
                e.to_string().contains("hf:OWNER/REPO[/FILE][@REVISION]"),
                "{bad}: {e}"
            );
        }
        let e = parse("smolm2").unwrap_err().to_string();
        assert!(e.contains("did you mean \"smollm2\""), "{e}");
        assert!(matches!(parse(""), Err(Error::UnknownModel { .. })));
    }
}
