//! The standard hub cache folder.
use crate::catalogue::{is_inside, is_sha256, is_word};
use crate::source::disk::{append, create_dir, remove_file, sha256_file, write_atomic};
use crate::source::fetch::Job;
use crate::source::ranges::{self, Ranges};
use crate::source::{CancelToken, Error, Result};
use std::path::{Component, Path, PathBuf};

/// The cache folder of one repository.
pub(crate) struct RepoCache {
    cache: PathBuf,
    name: String,
}

/// Where a file is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    /// In the snapshot of this commit.
    Snapshot,
    /// In the blobs, from another commit.
    Blob,
    No,
}

/// A file of a snapshot.
pub(crate) struct CachedFile {
    pub(crate) path: PathBuf,
    /// The blob's name, when that is a sha256.
    pub(crate) sha256: Option<String>,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        Self {
            cache: cache.to_owned(),
            name: format!("models--{}", repo.replace('/', "--")),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.dir().join("blobs")
    }

    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.cache
            .join(".locks")
            .join(&self.name)
            .join(format!("{etag}.lock"))
    }

    pub(super) fn snapshot(&self, commit: &str, file: &str) -> PathBuf {
        let mut path = self.dir().join("snapshots").join(commit);
        path.extend(file.split('/').filter(|p| !p.is_empty()));
        path
    }

    pub(super) fn is_commit(&self, revision: &str) -> bool {
        revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// The commit a revision stood for when it was last asked for.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if self.dir().join("snapshots").join(revision).is_dir() && is_word(revision) {
            return Some(revision.to_owned());
        }
        let text = std::fs::read_to_string(self.dir().join("refs").join(revision)).ok()?;
        let commit = text.trim();
        (is_word(commit) && !commit.contains("..")).then(|| commit.to_owned())
    }

    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.is_commit(revision) {
            return Ok(());
        }
        let path = self.dir().join("refs").join(revision);
        if let Some(dir) = path.parent() {
            create_dir(dir)?;
        }
        write_atomic(&path, commit.as_bytes())
    }

    /// Names of all files of a snapshot that are really there.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let root = self.snapshot(commit, "");
        let mut names = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    folders.push(path);
                } else if path.is_file() {
                    let name = path.strip_prefix(&root).ok().map(|p| {
                        let parts = p.components().filter_map(|c| match c {
                            Component::Normal(c) => c.to_str(),
                            _ => None,
                        });
                        parts.collect::<Vec<_>>().join("/")
                    });
                    names.extend(name.filter(|n| is_inside(n)));
                }
            }
        }
        names.sort();
        names
    }

    pub(crate) fn find(&self, commit: &str, file: &str) -> Option<CachedFile> {
        let path = self.snapshot(commit, file);
        if !path.is_file() {
            return None;
        }
        let blob = std::fs::read_link(&path).ok();
        let blob = blob
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|n| n.to_str());
        Some(CachedFile {
            sha256: blob.filter(|b| is_sha256(b)).map(str::to_owned),
            path,
        })
    }

    /// A file of any snapshot with this very content.
    pub(super) fn find_content(
        &self,
        file: &str,
        size: u64,
        sha256: &str,
        cancel: &CancelToken,
    ) -> Result<Option<PathBuf>> {
        for entry in std::fs::read_dir(self.dir().join("snapshots"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let commit = entry.file_name();
            let Some(found) = commit.to_str().and_then(|c| self.find(c, file)) else {
                continue;
            };
            if std::fs::metadata(&found.path).is_ok_and(|m| m.len() != size) {
                continue;
            }
            let got = match found.sha256 {
                Some(name) => name,
                None => sha256_file(&found.path, cancel, |_| ())?,
            };
            if got == sha256 {
                return Ok(Some(found.path));
            }
        }
        Ok(None)
    }

    /// Whether the content is here. A blob or snapshot of another length is not it.
    pub(super) fn has(&self, commit: &str, job: &Job) -> Cached {
        let fits = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.len() == job.size);
        match () {
            () if fits(&self.snapshot(commit, &job.file)) => Cached::Snapshot,
            () if fits(&job.dest) => Cached::Blob,
            () => Cached::No,
        }
    }

    /// Takes over the prefix that an interrupted run of the hub's own client left, when a hash will judge the result.
    pub(super) fn adopt(&self, job: &Job) -> Result<()> {
        let theirs = append(&job.dest, ".incomplete");
        let Ok(meta) = std::fs::metadata(&theirs) else {
            return Ok(());
        };
        let usable = meta.is_file() && meta.len() > 0 && meta.len() <= job.size;
        if !usable || job.sha256.is_none() || job.part.exists() {
            return Ok(());
        }
        std::fs::rename(&theirs, &job.part).map_err(|e| Error::io("take over", &theirs, e))?;
        let mut done = Ranges::default();
        done.insert(0, meta.len());
        ranges::save(&job.state, &job.identity, job.size, &done)
    }

    /// Gives a blob its name in a snapshot: a relative symbolic link, or the file itself where links are not allowed.
    pub(super) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<()> {
        let snapshot = self.snapshot(commit, file);
        if let Some(dir) = snapshot.parent() {
            create_dir(dir)?;
        }
        remove_file(&snapshot)?;
        let mut target = PathBuf::new();
        (0..file.split('/').count() + 1).for_each(|_| target.push(".."));
        target.push("blobs");
        target.extend(blob.file_name());
        symlink(&target, &snapshot)
            .or_else(|_| std::fs::rename(blob, &snapshot))
            .map_err(|e| Error::io("link", &snapshot, e))
    }

    /// Removes a file whose content is wrong, blob and all.
    pub(crate) fn discard(&self, snapshot: &Path) -> Result<()> {
        if let Ok(blob) = std::fs::canonicalize(snapshot)
            && std::fs::canonicalize(self.blobs()).is_ok_and(|b| blob.parent() == Some(&b))
        {
            remove_file(&blob)?;
        }
        remove_file(snapshot).map(drop)
    }

    /// Removes what interrupted downloads of ours left. Returns the bytes freed.
    pub(crate) fn remove_partial(&self) -> Result<u64> {
        let mut freed = 0;
        for entry in std::fs::read_dir(self.blobs())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().contains(".firelight.") {
                freed += remove_file(&entry.path())?;
            }
        }
        Ok(freed)
    }

    /// Removes one file of a snapshot, and its blob unless another snapshot has it too. Returns the bytes freed.
    pub(crate) fn remove(&self, snapshot: &Path) -> Result<u64> {
        let blob = std::fs::canonicalize(snapshot).ok();
        let mut freed = remove_file(snapshot)?;
        let blobs = std::fs::canonicalize(self.blobs()).ok();
        let Some(blob) = blob.filter(|b| b.parent() == blobs.as_deref()) else {
            return Ok(freed);
        };
        let mut used = false;
        for entry in std::fs::read_dir(self.dir().join("snapshots"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let commit = entry.file_name();
            let Some(commit) = commit.to_str() else {
                continue;
            };
            used |= self
                .files(commit)
                .iter()
                .any(|f| std::fs::canonicalize(self.snapshot(commit, f)).is_ok_and(|p| p == blob));
        }
        if !used {
            freed += remove_file(&blob)?;
        }
        Ok(freed)
    }
}

#[cfg(unix)]
pub(crate) fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
pub(crate) fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
pub(crate) fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
