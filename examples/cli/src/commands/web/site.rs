//! The site: a table from addresses to contents, made once at start. Only what is in the table can be asked for.

use super::headers::Connect;
use super::models::Model;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/site.rs"));
}

/// Folders in folders that are looked into: links may go in circles.
const MAX_DEPTH: usize = 8;
/// Files of a site; a wrong `--site` should not walk a whole disk.
const MAX_FILES: usize = 20_000;

/// Where a content is.
#[derive(Clone)]
pub(crate) enum Content {
    /// In a file, read when it is asked for.
    File(PathBuf),
    /// In this program.
    Embedded(&'static [u8]),
    /// A model's manifest, made when it is first asked for: that takes reading all of the model.
    Manifest(Arc<Model>),
    /// The list of models, the same.
    Index(Arc<[Arc<Model>]>),
}

/// A content, opened.
pub(crate) enum Opened {
    /// All of it.
    Bytes(Cow<'static, [u8]>),
    /// A file and its length.
    File(File, u64),
}

impl Opened {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Opened::Bytes(b) => b.len() as u64,
            Opened::File(_, len) => *len,
        }
    }
}

/// See the module's head.
pub(crate) struct Site {
    table: BTreeMap<String, Content>,
    pub(crate) connect: Connect,
    /// Where the pages come from, for people.
    pub(crate) origin: String,
}

impl Site {
    /// The site in a folder, or the one beside or in this program. Fails if there is none.
    pub(crate) fn find(dir: Option<&Path>, connect: Connect) -> Result<Self> {
        let mut site = Site {
            table: BTreeMap::new(),
            connect,
            origin: String::new(),
        };
        if let Some(dir) = dir {
            if !is_site(dir) {
                bail!(
                    "--site {}: there is no site.js in it, so it is no built site; scripts/build_web.sh writes one to target/web",
                    dir.display()
                );
            }
            site.add_folder(dir)?;
        } else if let Some(dir) = built_here() {
            site.add_folder(&dir)?;
        } else if !embedded::FILES.is_empty() {
            "this program".clone_into(&mut site.origin);
            for &(key, bytes) in embedded::FILES {
                site.add(key, Content::Embedded(bytes));
            }
        } else {
            bail!(
                "this program was built without the site, and none is in target/web: run scripts/build_web.sh, or name a built site \
                 with --site DIR"
            );
        }
        Ok(site)
    }

    fn add_folder(&mut self, dir: &Path) -> Result<()> {
        self.origin = dir.display().to_string();
        let mut folders = vec![(dir.to_path_buf(), String::new(), 0)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            let entries = folder
                .read_dir()
                .with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let path = entry
                    .with_context(|| format!("cannot read {}", folder.display()))?
                    .path();
                let Some(name) = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .filter(|n| !n.starts_with('.'))
                else {
                    continue;
                };
                let key = format!("{prefix}{name}");
                if path.is_file() {
                    self.add(&key, Content::File(path));
                } else if path.is_dir() && depth < MAX_DEPTH {
                    folders.push((path, format!("{key}/"), depth + 1));
                }
                if self.table.len() > MAX_FILES {
                    bail!(
                        "{} has more than {MAX_FILES} files: is it the right folder?",
                        dir.display()
                    );
                }
            }
        }
        Ok(())
    }

    /// Adds or replaces a content.
    pub(crate) fn add(&mut self, key: &str, content: Content) {
        self.table.insert(key.to_owned(), content);
    }

    /// True if something has this address.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// All addresses.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }

    /// What an address stands for, and its entity tag.
    pub(crate) fn open(&self, key: &str) -> io::Result<Option<(Opened, String)>> {
        let Some(content) = self.table.get(key) else {
            return Ok(None);
        };
        let bytes: Cow<'static, [u8]> = match content {
            Content::Embedded(bytes) => Cow::Borrowed(bytes),
            Content::Manifest(model) => Cow::Owned(serde_json::to_vec(&model.spec("")?)?),
            Content::Index(models) => Cow::Owned(super::models::index(models)?),
            Content::File(path) => {
                let file = match File::open(path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    other => other?,
                };
                if !Connect::is_in(key) {
                    let (len, tag) = stamp(&file)?;
                    return Ok(Some((Opened::File(file, len), format!("\"{tag}\""))));
                }
                Cow::Owned(io::read_to_string(file)?.into_bytes())
            }
        };
        let bytes = match std::str::from_utf8(&bytes) {
            Ok(html) if Connect::is_in(key) => Cow::Owned(self.connect.in_page(html).into_bytes()),
            _ => bytes,
        };
        let tag = format!("\"{}\"", &hex(&Sha256::digest(&bytes))[..24]);
        Ok(Some((Opened::Bytes(bytes), tag)))
    }
}

/// Length of a file, and a text that is another one when the file was changed.
pub(crate) fn stamp(file: &File) -> io::Result<(u64, String)> {
    let meta = file.metadata()?;
    let time = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    Ok((
        meta.len(),
        format!("{:x}-{:x}", meta.len(), time.as_nanos()),
    ))
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn is_site(dir: &Path) -> bool {
    dir.join("site.js").is_file() && dir.join("index.html").is_file()
}

/// `target/web` of the checkout that this program was built in: beside the folder of its profile.
fn built_here() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let dir = exe.parent()?.parent()?.join("web");
    is_site(&dir).then_some(dir)
}
