//! The own cache: models of the catalogue, with what is remembered of each file.
//! ```text
//! models/NAME/FILE               the file, or a link into the hub cache
//! models/NAME/.firelight.json    per file: size, time and sha256 when it was last known to be right
//! partial/NAME/                  what an interrupted run left
//! locks/NAME.lock
//! ```
//! A file counts as sound when length and time are as remembered; otherwise it is hashed again, and fetched again if the hash
//! is wrong.
use super::disk::{create_dir, folder_bytes, remove_dir, remove_file, sha256_file, write_atomic};
use super::hub::RepoCache;
use super::report::Reporter;
use super::{CancelToken, Phase, Result};
use crate::catalogue::{Entry, FileSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// A catalogue entry and what of it is on this machine.
#[derive(Clone, Debug)]
pub struct CatalogueStatus {
    /// The entry.
    pub entry: Entry,
    /// Whether all files are here (by length and time; [`Resolver::verify`](super::Resolver::verify) computes hashes).
    pub cached: bool,
    /// Bytes that finished files take, links into the hub cache included.
    pub bytes: u64,
    /// Bytes that an interrupted download left for the next one.
    pub partial_bytes: u64,
    /// File or folder to load, when cached.
    pub path: Option<PathBuf>,
}

/// Outcome of verifying one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCheck {
    /// The file.
    pub path: PathBuf,
    /// What was found.
    pub state: FileState,
}

/// State of a file.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// The sha256 is right.
    Sound,
    /// It is there, but nothing says what its sha256 should be.
    NoHash,
    /// It is not there.
    Missing,
    /// Length or sha256 is wrong; the file was discarded, so that the next resolve fetches it again.
    Corrupt {
        /// What differs.
        reason: String,
    },
}

#[derive(Default, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    files: BTreeMap<String, Record>,
}

/// What is remembered of a file that was right.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    size: u64,
    modified: u64,
    sha256: String,
    /// Where it came from, for people.
    pub(super) origin: String,
    /// Set when it is a link into the hub cache.
    hub: Option<HubCopy>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct HubCopy {
    pub(super) repo: String,
    pub(super) path: PathBuf,
    /// Whether we put it there; if not, it is not ours to remove.
    pub(super) fetched: bool,
}

/// A look at a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Sound,
    /// Right length, but not as remembered.
    Unsure,
    WrongLength,
    Missing,
}

pub(super) struct Store {
    root: PathBuf,
    hub_cache: PathBuf,
}

impl Store {
    pub(super) fn new(root: &Path, hub_cache: &Path) -> Self {
        Self {
            root: root.to_owned(),
            hub_cache: hub_cache.to_owned(),
        }
    }

    pub(super) fn dir(&self, entry: &Entry) -> PathBuf {
        self.root.join("models").join(&entry.name)
    }

    pub(super) fn work(&self, entry: &Entry) -> PathBuf {
        self.root.join("partial").join(&entry.name)
    }

    pub(super) fn lock(&self, entry: &Entry) -> PathBuf {
        self.root.join("locks").join(format!("{}.lock", entry.name))
    }

    pub(super) fn file(&self, entry: &Entry, file: &FileSpec) -> PathBuf {
        let mut path = self.dir(entry);
        path.extend(file.name.split('/'));
        path
    }

    /// What to load: the file of a model of one file or of a split GGUF, else the folder.
    pub(super) fn root(&self, entry: &Entry) -> PathBuf {
        match entry.files.as_slice() {
            [first, rest @ ..] if rest.iter().all(|f| f.name.ends_with(".gguf")) => {
                self.file(entry, first)
            }
            _ => self.dir(entry),
        }
    }

    fn manifest(&self, entry: &Entry) -> Manifest {
        // One that cannot be read costs a hash, no more.
        let text = std::fs::read(self.dir(entry).join(".firelight.json")).unwrap_or_default();
        serde_json::from_slice::<Manifest>(&text)
            .ok()
            .filter(|m| m.version == 1)
            .unwrap_or_default()
    }

    fn save(&self, entry: &Entry, mut manifest: Manifest) -> Result<()> {
        manifest.version = 1;
        create_dir(&self.dir(entry))?;
        let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        write_atomic(&self.dir(entry).join(".firelight.json"), &text)
    }

    pub(super) fn record(&self, entry: &Entry, file: &FileSpec) -> Option<Record> {
        self.manifest(entry).files.remove(&file.name)
    }

    /// Remembers that a file is right as it is now.
    pub(super) fn remember(
        &self,
        entry: &Entry,
        file: &FileSpec,
        origin: &str,
        hub: Option<HubCopy>,
    ) -> Result<()> {
        let mut manifest = self.manifest(entry);
        let record = Record {
            size: file.size,
            modified: modified(&self.file(entry, file)).unwrap_or(0),
            sha256: file.sha256.clone(),
            origin: origin.to_owned(),
            hub,
        };
        manifest.files.insert(file.name.clone(), record);
        self.save(entry, manifest)
    }

    pub(super) fn look(&self, entry: &Entry, file: &FileSpec) -> Look {
        let path = self.file(entry, file);
        let Ok(meta) = std::fs::metadata(&path) else {
            return Look::Missing;
        };
        if !meta.is_file() || meta.len() != file.size {
            return Look::WrongLength;
        }
        match self.record(entry, file) {
            Some(r)
                if r.sha256 == file.sha256
                    && r.size == file.size
                    && Some(r.modified) == modified(&path) =>
            {
                Look::Sound
            }
            _ => Look::Unsure,
        }
    }

    /// Reads a file if a look is not enough; what is wrong is removed. Call under the entry's lock.
    pub(super) fn check(
        &self,
        entry: &Entry,
        file: &FileSpec,
        always: bool,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<FileState> {
        let path = self.file(entry, file);
        let reason = match self.look(entry, file) {
            Look::Missing => {
                // A link whose target is gone is in the way of a new file.
                remove_file(&path)?;
                return Ok(FileState::Missing);
            }
            Look::Sound if !always => return Ok(FileState::Sound),
            Look::WrongLength => {
                let got = std::fs::metadata(&path).map_or(0, |m| m.len());
                format!("{got} bytes instead of {}", file.size)
            }
            Look::Sound | Look::Unsure => {
                let step = |n| report.at(Phase::Verifying, &file.name, n);
                let got = sha256_file(&path, cancel, step)?;
                report.finish(Phase::Verifying, &file.name, file.size);
                if got == file.sha256 {
                    let old = self.record(entry, file);
                    let origin = old
                        .as_ref()
                        .map_or("found in the cache", |r| r.origin.as_str());
                    // In a cache that is read-only the hash is computed each time.
                    let _ = self.remember(
                        entry,
                        file,
                        origin,
                        old.as_ref().and_then(|r| r.hub.clone()),
                    );
                    return Ok(FileState::Sound);
                }
                format!("sha256 is {got} instead of {}", file.sha256)
            }
        };
        if let Some(hub) = self.record(entry, file).and_then(|r| r.hub) {
            // Wrong content is nobody's: the blob goes too.
            let cache = RepoCache::new(&self.hub_cache, &hub.repo);
            if hub.path.starts_with(cache.dir()) {
                cache.discard(&hub.path)?;
            }
        }
        remove_file(&path)?;
        Ok(FileState::Corrupt { reason })
    }

    fn remove_hub_copy(&self, hub: &HubCopy) -> Result<u64> {
        let cache = RepoCache::new(&self.hub_cache, &hub.repo);
        let ours = hub.path.starts_with(cache.dir()) && hub.fetched;
        if ours { cache.remove(&hub.path) } else { Ok(0) }
    }

    /// Removes a model. Returns the bytes freed.
    pub(super) fn remove(&self, entry: &Entry) -> Result<u64> {
        let mut freed = folder_bytes(&self.dir(entry)) + folder_bytes(&self.work(entry));
        for record in self.manifest(entry).files.into_values() {
            if let Some(hub) = record.hub {
                freed += self.remove_hub_copy(&hub)?;
            }
        }
        remove_dir(&self.dir(entry))?;
        remove_dir(&self.work(entry))?;
        Ok(freed)
    }

    pub(super) fn status(&self, entry: &Entry) -> CatalogueStatus {
        let sound = |f: &FileSpec| self.look(entry, f) == Look::Sound;
        let cached = entry.files.iter().all(sound);
        let lengths = entry
            .files
            .iter()
            .filter_map(|f| std::fs::metadata(self.file(entry, f)).ok());
        CatalogueStatus {
            cached,
            bytes: lengths.map(|m| m.len()).sum(),
            partial_bytes: folder_bytes(&self.work(entry)),
            path: cached.then(|| self.root(entry)),
            entry: entry.clone(),
        }
    }
}

/// Time of last change, in nanoseconds since 1970.
fn modified(path: &Path) -> Option<u64> {
    let time = std::fs::metadata(path).ok()?.modified().ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}
