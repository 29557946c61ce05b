//! From what a user typed to files on this machine.
use super::disk::{self, Lock, create_dir, remove_file};
use super::http::Client;
use super::hub::{Hub, Pin, RepoCache, part_name, split_name, symlink};
use super::model_ref::HubRef;
use super::package::{self, Packages};
use super::report::Reporter;
use super::store::{HubCopy, Look, Store};
use super::{
    CancelToken, CatalogueStatus, Error, FileCheck, FileState, ModelRef, Options, Phase,
    ProgressEvent, Result, SourceKind,
};
use crate::catalogue::{Catalogue, Entry, FileSpec, HubFile, SourceSpec};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Files of a model on this machine.
#[derive(Clone, Debug)]
pub struct LocalModel {
    /// Name for people: the catalogue's, the file's, or the hub reference.
    pub name: String,
    /// File or folder to load.
    pub root: PathBuf,
    /// All files, the one to load first at the front.
    pub files: Vec<PathBuf>,
    /// sha256 of each file, where it is known (then it was checked when the file was fetched).
    pub sha256: Vec<Option<String>>,
    /// Licence, where it is known.
    pub licence: Option<String>,
    /// Where the files came from, for people.
    pub origin: String,
    /// The catalogue's entry, for a catalogue name.
    pub entry: Option<Entry>,
}

/// Finds and fetches models. Cheap to make; safe to use from several threads and processes at once.
pub struct Resolver {
    options: Options,
    client: OnceLock<Client>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver with these options ([`Options::from_env`] for those of the user). Touches neither disk nor network.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            client: OnceLock::new(),
        }
    }

    /// The options in use.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The models known by name.
    pub fn catalogue(&self) -> &Catalogue {
        &self.options.catalogue
    }

    /// Reads what a user typed; see [`ModelRef::parse`].
    pub fn parse(&self, text: &str) -> Result<ModelRef> {
        ModelRef::parse(text, &self.options.catalogue)
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| Client::new(&self.options))
    }

    fn store(&self) -> Store {
        Store::new(&self.options.cache_dir, &self.options.hub.cache_dir)
    }

    fn hub<'a>(&'a self, cancel: &'a CancelToken) -> Hub<'a> {
        Hub {
            client: self.client(),
            options: &self.options,
            cancel,
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.options
            .catalogue
            .get(name)
            .ok_or_else(|| self.options.catalogue.unknown(name))
    }

    /// Makes a model's files available, fetching what is missing. Blocks; `progress` is called on this thread, about ten times
    /// a second. After a failure or a cancel the next call goes on from what was fetched.
    pub fn resolve(
        &self,
        model: &ModelRef,
        progress: &mut dyn FnMut(ProgressEvent),
        cancel: &CancelToken,
    ) -> Result<LocalModel> {
        let mut report = Reporter::new(progress);
        match model {
            ModelRef::Path(path) => local(path),
            ModelRef::Name(name) => self.named(self.entry(name)?, &mut report, cancel),
            ModelRef::Hub(hub) => {
                let found = self.hub(cancel).resolve(hub, &mut report)?;
                Ok(LocalModel {
                    name: hub.to_string(),
                    root: found.root,
                    files: found.files,
                    sha256: found.sha256,
                    licence: found.licence,
                    origin: hub.to_string(),
                    entry: None,
                })
            }
        }
    }

    fn named(
        &self,
        entry: &Entry,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<LocalModel> {
        let store = self.store();
        if !entry
            .files
            .iter()
            .all(|f| store.look(entry, f) == Look::Sound)
        {
            let _lock = Lock::take(&store.lock(entry), cancel, || {
                report.at(Phase::Waiting, &entry.name, 0);
            })?;
            self.complete(entry, &store, report, cancel)?;
        }
        let origin = entry.files.first().and_then(|f| store.record(entry, f));
        Ok(LocalModel {
            name: entry.name.clone(),
            root: store.root(entry),
            files: entry.files.iter().map(|f| store.file(entry, f)).collect(),
            sha256: entry.files.iter().map(|f| Some(f.sha256.clone())).collect(),
            licence: Some(entry.licence.clone()),
            origin: origin.map_or_else(|| "cache".to_owned(), |r| r.origin),
            entry: Some(entry.clone()),
        })
    }

    /// Checks what is there and fetches the rest, under the entry's lock.
    fn complete(
        &self,
        entry: &Entry,
        store: &Store,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let unsure = entry
            .files
            .iter()
            .filter(|f| store.look(entry, f) == Look::Unsure);
        report.plan_rest(Phase::Verifying, unsure.map(|f| f.size).sum());
        let mut missing = Vec::new();
        for file in &entry.files {
            if store.check(entry, file, false, report, cancel)? != FileState::Sound {
                missing.push(file);
            }
        }
        let mut rest = missing.as_slice();
        while let [file, later @ ..] = rest {
            if let Some(dir) = store.file(entry, file).parent() {
                create_dir(dir)?;
            }
            self.provide(entry, file, later, store, report, cancel)?;
            rest = later;
        }
        disk::remove_dir(&store.work(entry))
    }

    /// Gets one file from the first source that can give it.
    fn provide(
        &self,
        entry: &Entry,
        file: &FileSpec,
        later: &[&FileSpec],
        store: &Store,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        for source in &file.sources {
            if let SourceSpec::Embedded(content) = source {
                return self.take_from_program(entry, file, content.0, store);
            }
        }
        let mut tried = Vec::new();
        for kind in &self.options.sources {
            for source in file.sources.iter().filter(|s| kind_of(s) == *kind) {
                let all = || std::iter::once(&file).chain(later);
                let result = match source {
                    SourceSpec::Hub(hub) => {
                        let bytes = all().map(|f| f.size).sum();
                        self.take_from_hub(entry, file, hub, bytes, store, report, cancel)
                    }
                    package => {
                        let same = |f: &FileSpec| {
                            f.sources
                                .iter()
                                .find(|s| kind_of(s) == *kind)
                                .map(package::download_bytes)
                        };
                        let later_download = later.iter().filter_map(|f| same(f)).sum::<u64>();
                        let download = package::download_bytes(package);
                        report.plan_rest(Phase::Downloading, download + later_download);
                        let bytes = all().map(|f| f.size).sum();
                        report.plan_rest(Phase::Extracting, bytes);
                        report.plan_rest(Phase::Verifying, bytes);
                        self.take_from_package(entry, file, package, later, store, report, cancel)
                    }
                };
                match result {
                    Ok(()) => return Ok(()),
                    Err(e) if e.tries_next_source() => tried.push((source_label(source), e)),
                    Err(e) => return Err(e),
                }
            }
        }
        match tried.len() {
            0 => Err(Error::InvalidInput {
                what: format!("FIRELIGHT_SOURCES for {}", entry.name),
                expected: "a kind of source that this model has (hub or package)".into(),
                got: format!("{:?}", self.options.sources),
            }),
            1 => Err(tried.remove(0).1),
            _ => Err(Error::AllSourcesFailed {
                name: entry.name.clone(),
                tried,
            }),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn take_from_hub(
        &self,
        entry: &Entry,
        file: &FileSpec,
        source: &HubFile,
        all_bytes: u64,
        store: &Store,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let hub = HubRef {
            repo: source.repo.clone(),
            file: Some(source.file.clone()),
            revision: source.revision.clone(),
        };
        let pin = Pin {
            size: file.size,
            sha256: &file.sha256,
            all_bytes,
        };
        let (path, fetched) = self.hub(cancel).pinned(&hub, &source.file, &pin, report)?;
        let dest = store.file(entry, file);
        remove_file(&dest)?;
        symlink(&path, &dest)
            .or_else(|_| std::fs::canonicalize(&path).and_then(|p| std::fs::hard_link(p, &dest)))
            .or_else(|_| std::fs::copy(&path, &dest).map(drop))
            .map_err(|e| disk::write_error(&self.options, &dest, file.size, e))?;
        let copy = HubCopy {
            repo: source.repo.clone(),
            path,
            fetched,
        };
        store.remember(entry, file, &hub.to_string(), Some(copy))
    }

    /// Writes a file that is in the program. Its hash is checked as any other's when it is next looked at.
    fn take_from_program(
        &self,
        entry: &Entry,
        file: &FileSpec,
        bytes: &[u8],
        store: &Store,
    ) -> Result<()> {
        let dest = store.file(entry, file);
        self.options.check_space(&store.dir(entry), file.size)?;
        let part = dest.with_extension("part");
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, &dest))
            .map_err(|e| disk::write_error(&self.options, &dest, file.size, e))?;
        store.remember(entry, file, "the program itself", None)
    }

    #[allow(clippy::too_many_arguments)]
    fn take_from_package(
        &self,
        entry: &Entry,
        file: &FileSpec,
        source: &SourceSpec,
        later: &[&FileSpec],
        store: &Store,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let label = package::label(source);
        if self.options.offline {
            return Err(Error::Offline {
                what: entry.name.clone(),
                switch: "FIRELIGHT_OFFLINE".into(),
            });
        }
        let packages = Packages {
            options: &self.options,
            cancel,
            work: store.work(entry),
        };
        report.at(Phase::CheckingDisk, &label, 0);
        let needed = later.iter().fold(packages.needed(file, source), |n, f| {
            n.saturating_add(f.size)
        });
        self.options.check_space(&store.dir(entry), needed)?;
        packages.fetch(file, source, &store.file(entry, file), report)?;
        store.remember(entry, file, &label, None)
    }

    /// All models of the catalogue and what of them is here. Reads no file's content.
    pub fn list(&self) -> Vec<CatalogueStatus> {
        let store = self.store();
        self.options
            .catalogue
            .models
            .iter()
            .map(|e| store.status(e))
            .collect()
    }

    /// File or folder of a model that is here already; never fetches. [`Error::NotFound`] when it is not here.
    pub fn path(&self, text: &str) -> Result<PathBuf> {
        let absent = |path: PathBuf| Error::NotFound {
            what: format!("model {text}"),
            path,
            fix: "fetch it first".into(),
        };
        match self.parse(text)? {
            ModelRef::Path(path) => local(&path).map(|m| m.root),
            ModelRef::Name(name) => {
                let store = self.store();
                let entry = self.entry(&name)?;
                store
                    .status(entry)
                    .path
                    .ok_or_else(|| absent(store.dir(entry)))
            }
            ModelRef::Hub(hub) => {
                let cancel = CancelToken::new();
                let found = self.hub(&cancel).cached(&hub);
                found
                    .map(|f| f.root)
                    .ok_or_else(|| absent(self.repo(&hub).dir()))
            }
        }
    }

    fn repo(&self, hub: &HubRef) -> RepoCache {
        RepoCache::new(&self.options.hub.cache_dir, &hub.repo)
    }

    /// Computes the hashes of a model's files. What is corrupt is discarded, so that the next [`Self::resolve`] fetches it
    /// again; the files of a path are the user's own and have no hashes to compare with.
    pub fn verify(
        &self,
        text: &str,
        progress: &mut dyn FnMut(ProgressEvent),
        cancel: &CancelToken,
    ) -> Result<Vec<FileCheck>> {
        let mut report = Reporter::new(progress);
        match self.parse(text)? {
            ModelRef::Path(path) => {
                let files = local(&path)?.files.into_iter();
                Ok(files
                    .map(|path| FileCheck {
                        path,
                        state: FileState::NoHash,
                    })
                    .collect())
            }
            ModelRef::Name(name) => {
                let (store, entry) = (self.store(), self.entry(&name)?);
                let _lock = Lock::take(&store.lock(entry), cancel, || {
                    report.at(Phase::Waiting, &entry.name, 0);
                })?;
                report.plan_rest(Phase::Verifying, entry.size());
                let check = |file: &FileSpec| {
                    let state = store.check(entry, file, true, &mut report, cancel)?;
                    Ok(FileCheck {
                        path: store.file(entry, file),
                        state,
                    })
                };
                entry.files.iter().map(check).collect()
            }
            ModelRef::Hub(hub) => self.verify_hub(&hub, &mut report, cancel),
        }
    }

    fn verify_hub(
        &self,
        hub: &HubRef,
        report: &mut Reporter<'_>,
        cancel: &CancelToken,
    ) -> Result<Vec<FileCheck>> {
        let cache = self.repo(hub);
        let Some(found) = self.hub(cancel).cached(hub) else {
            return Ok(vec![FileCheck {
                path: cache.dir(),
                state: FileState::Missing,
            }]);
        };
        let length = |p: &PathBuf| std::fs::metadata(p).map_or(0, |m| m.len());
        report.plan_rest(Phase::Verifying, found.files.iter().map(length).sum());
        let mut checks = Vec::new();
        for (path, sha256) in found.files.into_iter().zip(found.sha256) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let state = match sha256 {
                None => FileState::NoHash,
                Some(expected) => {
                    let step = |n| report.at(Phase::Verifying, &name, n);
                    let got = disk::sha256_file(&path, cancel, step)?;
                    if got == expected {
                        FileState::Sound
                    } else {
                        cache.discard(&path)?;
                        FileState::Corrupt {
                            reason: format!("sha256 is {got} instead of {expected}"),
                        }
                    }
                }
            };
            report.finish(Phase::Verifying, &name, length(&path));
            checks.push(FileCheck { path, state });
        }
        Ok(checks)
    }

    /// Removes a model's files and what an interrupted download left. Returns the bytes freed; nothing there frees nothing.
    /// Files of the hub cache that other revisions use, or that another program put there for a catalogue model, stay.
    pub fn remove(&self, text: &str) -> Result<u64> {
        let cancel = CancelToken::new();
        match self.parse(text)? {
            ModelRef::Path(path) => Err(Error::InvalidInput {
                what: "model to remove".into(),
                expected: "a catalogue name or hf:OWNER/REPO; files outside the caches are yours to delete".into(),
                got: path.display().to_string(),
            }),
            ModelRef::Name(name) => {
                let (store, entry) = (self.store(), self.entry(&name)?);
                let _lock = Lock::take(&store.lock(entry), &cancel, || ())?;
                store.remove(entry)
            }
            ModelRef::Hub(hub) => {
                let cache = self.repo(&hub);
                let mut freed = cache.remove_partial()?;
                for path in self.hub(&cancel).cached(&hub).map(|f| f.files).unwrap_or_default() {
                    freed += cache.remove(&path)?;
                }
                Ok(freed)
            }
        }
    }
}

fn kind_of(source: &SourceSpec) -> SourceKind {
    match source {
        SourceSpec::Hub(_) => SourceKind::Hub,
        _ => SourceKind::Package,
    }
}

fn source_label(source: &SourceSpec) -> String {
    match source {
        SourceSpec::Hub(h) => format!("hf:{}/{}", h.repo, h.file),
        package => package::label(package),
    }
}

/// A file (with the other parts of a split one) or a folder of this machine.
fn local(path: &Path) -> Result<LocalModel> {
    let missing = |path: &Path, fix: &str| Error::NotFound {
        what: "model".into(),
        path: path.to_owned(),
        fix: fix.into(),
    };
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(
            path,
            "check the path; a hub repository is written hf:OWNER/REPO[/FILE]",
        ),
        _ => Error::io("open", path, e),
    })?;
    let mut files = vec![path.to_owned()];
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    if meta.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io("list", path, e))?;
        files = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.is_file())
            .collect();
        files.sort();
        if files.is_empty() {
            return Err(missing(path, "the folder has no files"));
        }
    } else if let Some((stem, _, count, ext)) = split_name(&name) {
        files = (1..=count)
            .map(|i| path.with_file_name(part_name(stem, i, count, ext)))
            .collect();
        if let Some(part) = files.iter().find(|p| !p.is_file()) {
            return Err(missing(part, "all parts of a split file must be beside it"));
        }
    }
    Ok(LocalModel {
        name: if name.is_empty() {
            path.display().to_string()
        } else {
            name
        },
        root: path.to_owned(),
        sha256: vec![None; files.len()],
        files,
        licence: None,
        origin: path.display().to_string(),
        entry: None,
    })
}
