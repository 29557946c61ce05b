//! Files of a hub repository: what the hub's API says, what its cache folder holds, and the way from one to the other.
//!
//! The cache folder is the standard one, so that files fetched by the hub's own client are found here and the other way round:
//! ```text
//! models--OWNER--REPO/refs/REVISION             the commit a branch or tag stood for when last asked
//! models--OWNER--REPO/blobs/ETAG                the content, once (sha256 for large files, git's hash for small ones)
//! models--OWNER--REPO/snapshots/COMMIT/FILE  -> ../../blobs/ETAG
//! .locks/models--OWNER--REPO/ETAG.lock
//! ```
//! A partial file has its own name (`ETAG.firelight.incomplete`): ranges arrive out of order, and the hub's client would take
//! the length of its `ETAG.incomplete` for the bytes received. The other way round a prefix it left behind is taken over.
mod api;
mod cache;
mod choose;

pub(crate) use api::advice;
pub(crate) use cache::{RepoCache, symlink};
pub(crate) use choose::{part_name, split_name};

use super::disk::{Lock, create_dir};
use super::fetch::{self, Job};
use super::http::Client;
use super::model_ref::HubRef;
use super::report::Reporter;
use super::{CancelToken, Error, Options, Phase, Result};
use api::Facts;
use cache::Cached;
use std::path::PathBuf;

/// Files of a repository on this machine.
pub(crate) struct Found {
    /// File or folder to load.
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) sha256: Vec<Option<String>>,
    pub(crate) licence: Option<String>,
}

/// What a file must be, when the catalogue pins it.
pub(crate) struct Pin<'a> {
    pub(crate) size: u64,
    pub(crate) sha256: &'a str,
    /// Bytes of this file and all that will follow it, for the disk check.
    pub(crate) all_bytes: u64,
}

pub(crate) struct Hub<'a> {
    pub(crate) client: &'a Client,
    pub(crate) options: &'a Options,
    pub(crate) cancel: &'a CancelToken,
}

impl Hub<'_> {
    /// Why the network may not be used, if so.
    fn offline(&self) -> Option<&'static str> {
        match () {
            () if self.options.offline => Some("FIRELIGHT_OFFLINE"),
            () if self.options.hub.offline => Some("HF_HUB_OFFLINE"),
            () => None,
        }
    }

    /// Fetches what a reference means, or finds it in the cache: without asking when a file of a commit is wanted or the
    /// network is off, and as a last resort when the hub cannot be reached.
    pub(crate) fn resolve(&self, hub: &HubRef, report: &mut Reporter<'_>) -> Result<Found> {
        let cache = RepoCache::new(&self.options.hub.cache_dir, &hub.repo);
        let cached = cache.commit(&hub.revision);
        // A snapshot does not say whether it is complete, so only a file can be known to be all that is wanted.
        let fixed = cache.is_commit(&hub.revision) && hub.file.is_some();
        if fixed && let Some(found) = self.in_cache(&cache, cached.as_deref(), hub) {
            return Ok(found);
        }
        if let Some(switch) = self.offline() {
            return self
                .in_cache(&cache, cached.as_deref(), hub)
                .ok_or_else(|| Error::Offline {
                    what: hub.to_string(),
                    switch: switch.to_owned(),
                });
        }
        report.at(Phase::Resolving, &hub.to_string(), 0);
        match self.online(&cache, hub, report) {
            Err(
                e @ (Error::Unreachable { .. }
                | Error::Http {
                    status: 429 | 500..,
                    ..
                }),
            ) => self.in_cache(&cache, cached.as_deref(), hub).ok_or(e),
            result => result,
        }
    }

    /// What the cache has of a reference; never asks the network.
    pub(crate) fn cached(&self, hub: &HubRef) -> Option<Found> {
        let cache = RepoCache::new(&self.options.hub.cache_dir, &hub.repo);
        self.in_cache(&cache, cache.commit(&hub.revision).as_deref(), hub)
    }

    fn in_cache(&self, cache: &RepoCache, commit: Option<&str>, hub: &HubRef) -> Option<Found> {
        let commit = commit?;
        let names = cache.files(commit);
        let chosen = choose::choose(&hub.repo, &names, hub.file.as_deref()).ok()?;
        let mut found = Found {
            root: cache.snapshot(commit, &chosen.root),
            files: Vec::new(),
            sha256: Vec::new(),
            licence: None,
        };
        for name in &chosen.files {
            let file = cache.find(commit, name)?;
            found.files.push(file.path);
            found.sha256.push(file.sha256);
        }
        choose::shards_complete(&chosen.files).then_some(found)
    }

    fn online(&self, cache: &RepoCache, hub: &HubRef, report: &mut Reporter<'_>) -> Result<Found> {
        let info = api::info(self.client, &self.options.hub.endpoint, hub, self.cancel)?;
        let names = info
            .files
            .iter()
            .map(|f| f.name.clone())
            .collect::<Vec<_>>();
        let chosen = choose::choose(&hub.repo, &names, hub.file.as_deref())?;
        let mut wanted = Vec::new();
        for name in &chosen.files {
            let listed = info
                .files
                .iter()
                .find(|f| f.name == *name)
                .and_then(|f| f.facts.clone());
            let facts = match listed {
                Some(facts) => facts,
                None => self.head(&hub.repo, &info.commit, name)?.0,
            };
            wanted.push((name.clone(), facts));
        }
        let (files, sha256) = self
            .fetch_all(cache, &hub.repo, &info.commit, wanted, 0, report)?
            .into_iter()
            .unzip();
        cache.remember(&hub.revision, &info.commit)?;
        let root = cache.snapshot(&info.commit, &chosen.root);
        Ok(Found {
            root,
            files,
            sha256,
            licence: info.licence,
        })
    }

    /// One pinned file, for the catalogue: from the cache if any snapshot has it, else from the hub. Also says whether it was
    /// fetched now.
    pub(crate) fn pinned(
        &self,
        hub: &HubRef,
        file: &str,
        pin: &Pin<'_>,
        report: &mut Reporter<'_>,
    ) -> Result<(PathBuf, bool)> {
        let cache = RepoCache::new(&self.options.hub.cache_dir, &hub.repo);
        if let Some(path) = cache.find_content(file, pin.size, pin.sha256, self.cancel)? {
            return Ok((path, false));
        }
        if let Some(switch) = self.offline() {
            let what = format!("hf:{}/{file}", hub.repo);
            return Err(Error::Offline {
                what,
                switch: switch.to_owned(),
            });
        }
        report.at(Phase::Resolving, &hub.repo, 0);
        let (mut facts, commit) = self.head(&hub.repo, &hub.revision, file)?;
        let origin = format!("hf:{}/{file}", hub.repo);
        // The hub says what it has before a byte is fetched.
        if facts.size != pin.size {
            let (expected, got) = (pin.size, facts.size);
            return Err(Error::WrongSize {
                file: file.to_owned(),
                expected,
                got,
                origin,
            });
        }
        if let Some(got) = facts.sha256.as_ref().filter(|got| *got != pin.sha256) {
            let (expected, got) = (pin.sha256.to_owned(), got.clone());
            return Err(Error::WrongHash {
                file: file.to_owned(),
                expected,
                got,
                origin,
            });
        }
        facts.sha256 = Some(pin.sha256.to_owned());
        let wanted = vec![(file.to_owned(), facts)];
        let later = pin.all_bytes.saturating_sub(pin.size);
        let paths = self.fetch_all(&cache, &hub.repo, &commit, wanted, later, report)?;
        cache.remember(&hub.revision, &commit)?;
        let path = paths.into_iter().next().map(|p| p.0);
        path.map(|p| (p, true))
            .ok_or_else(|| Error::malformed(origin, "no file fetched"))
    }

    fn head(&self, repo: &str, revision: &str, file: &str) -> Result<(Facts, String)> {
        let url = api::resolve_url(&self.options.hub.endpoint, repo, revision, file);
        api::head(self.client, &url, revision, file, self.cancel)
    }

    /// Brings files into the cache; the disk is checked for all of them before the first byte.
    fn fetch_all(
        &self,
        cache: &RepoCache,
        repo: &str,
        commit: &str,
        wanted: Vec<(String, Facts)>,
        later_bytes: u64,
        report: &mut Reporter<'_>,
    ) -> Result<Vec<(PathBuf, Option<String>)>> {
        create_dir(&cache.blobs())?;
        let jobs = wanted.into_iter().map(|(name, facts)| {
            let dest = cache.blobs().join(&facts.etag);
            let (part, state) = fetch::partial_names(&dest);
            Job {
                url: api::resolve_url(&self.options.hub.endpoint, repo, commit, &name),
                file: name,
                size: facts.size,
                identity: facts.etag,
                sha256: facts.sha256,
                part,
                state,
                dest,
            }
        });
        let jobs = jobs
            .map(|job| (cache.has(commit, &job), job))
            .collect::<Vec<_>>();
        let missing = jobs.iter().filter(|j| j.0 == Cached::No).map(|j| &j.1);
        let sizes = missing.map(|job| (job.size, job.size - fetch::fetched(job).min(job.size)));
        let (total, needed) = sizes.fold((0u64, 0u64), |(t, n), (s, m)| {
            (t.saturating_add(s), n.saturating_add(m))
        });
        report.plan_rest(Phase::Downloading, total.saturating_add(later_bytes));
        report.plan_rest(Phase::Verifying, total.saturating_add(later_bytes));
        if needed > 0 {
            report.at(Phase::CheckingDisk, repo, 0);
            self.options
                .check_space(&cache.blobs(), needed.saturating_add(later_bytes))?;
        }
        // Small files first: a snapshot with its weights is then a complete one.
        let mut order = jobs.iter().collect::<Vec<_>>();
        order.sort_by_key(|(_, job)| job.size);
        for (cached, job) in order {
            if *cached != Cached::Snapshot {
                let lock = cache.lock(&job.identity);
                let _lock = Lock::take(&lock, self.cancel, || {
                    report.at(Phase::Waiting, &job.file, 0);
                })?;
                if cache.has(commit, job) == Cached::No {
                    cache.adopt(job)?;
                    fetch::fetch(self.client, self.options, job, report, self.cancel)?;
                }
                cache.link(commit, &job.file, &job.dest)?;
            }
        }
        let path = |job: &Job| cache.snapshot(commit, &job.file);
        Ok(jobs
            .into_iter()
            .map(|(_, job)| (path(&job), job.sha256))
            .collect())
    }
}
