//! Fetches one file by parallel range requests into a partial file, and resumes from what is there.
//!
//! Workers on threads of their own take pieces from a queue, write each at its place, and note it as done; the caller's thread
//! reports progress, saves the ranges five times a second and watches the cancel token. A piece that breaks off goes on from
//! where it broke. A server that does not know ranges is read once from the start by one worker.
use super::disk::{remove_file, sha256_file, write_error};
use super::http::{Client, Failure, Follow, Reply, Request, busy, is_transient, pause, shown};
use super::ranges::{self, Ranges};
use super::report::Reporter;
use super::{CancelToken, Error, Options, Phase, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

/// What a killed process loses of its progress at most.
const SAVE_EVERY: Duration = Duration::from_millis(200);

/// What to fetch, and where to.
#[derive(Clone)]
pub(crate) struct Job {
    /// Name for messages.
    pub(crate) file: String,
    pub(crate) url: String,
    pub(crate) size: u64,
    /// Changes when the content does: ETag or hash.
    pub(crate) identity: String,
    /// Hex; checked when known.
    pub(crate) sha256: Option<String>,
    /// The partial file.
    pub(crate) part: PathBuf,
    /// The ranges of it.
    pub(crate) state: PathBuf,
    /// The finished file; renamed into place after every check.
    pub(crate) dest: PathBuf,
}

/// Fetches a file, or the rest of it. The caller holds the file's lock and has checked the disk.
pub(crate) fn fetch(
    client: &Client,
    options: &Options,
    job: &Job,
    report: &mut Reporter<'_>,
    cancel: &CancelToken,
) -> Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        download(client, options, job, report, cancel)?;
        match check(job, report, cancel) {
            Ok(()) => break,
            Err(e @ (Error::WrongHash { .. } | Error::WrongSize { .. })) => {
                remove_file(&job.part)?;
                remove_file(&job.state)?;
                if attempt == 2 {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    report.settle(Phase::Downloading, job.size);
    report.finish(Phase::Verifying, &job.file, job.size);
    // The name must not outlive the content through a power cut.
    File::open(&job.part)
        .and_then(|f| f.sync_all())
        .and_then(|()| std::fs::rename(&job.part, &job.dest))
        .map_err(|e| Error::io("move into place", &job.dest, e))?;
    remove_file(&job.state).map(drop)
}

/// Bytes of the file that are on disk already.
pub(crate) fn fetched(job: &Job) -> u64 {
    ranges::load(&job.state, &job.part, &job.identity, job.size).total()
}

fn check(job: &Job, report: &mut Reporter<'_>, cancel: &CancelToken) -> Result<()> {
    let got = std::fs::metadata(&job.part)
        .map_err(|e| Error::io("read", &job.part, e))?
        .len();
    let origin = shown(&job.url);
    if got != job.size {
        let file = job.file.clone();
        return Err(Error::WrongSize {
            file,
            expected: job.size,
            got,
            origin,
        });
    }
    let Some(expected) = &job.sha256 else {
        return Ok(());
    };
    let got = sha256_file(&job.part, cancel, |n| {
        report.at(Phase::Verifying, &job.file, n)
    })?;
    if got == *expected {
        return Ok(());
    }
    Err(Error::WrongHash {
        file: job.file.clone(),
        expected: expected.clone(),
        got,
        origin,
    })
}

struct Progress {
    queue: Vec<(u64, u64)>,
    done: Ranges,
    /// Where redirects led last; saves the hub a question per piece.
    location: Option<String>,
    /// One worker reads the whole file, since the server knows no ranges.
    whole: bool,
}

struct Shared {
    job: Job,
    client: Client,
    options: Options,
    progress: Mutex<Progress>,
    /// True once nothing may be written any more. Writers hold it for reading.
    stopped: RwLock<bool>,
    cancel: CancelToken,
}

enum Message {
    /// The server answers ranges: more workers are of use.
    Ranges,
    Failed(Error),
    /// A worker is gone, one way or another.
    Gone,
}

/// Says that a worker is gone even if it panicked; otherwise it would be waited for.
struct Sentinel(mpsc::Sender<Message>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        // The receiver is gone after a stop; then nobody waits for this.
        let _ = self.0.send(Message::Gone);
    }
}

fn download(
    client: &Client,
    options: &Options,
    job: &Job,
    report: &mut Reporter<'_>,
    cancel: &CancelToken,
) -> Result<()> {
    let done = ranges::load(&job.state, &job.part, &job.identity, job.size);
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&job.part);
    let file = open.map_err(|e| write_error(options, &job.part, job.size, e))?;
    if file
        .metadata()
        .is_ok_and(|m| m.is_file() && m.len() > job.size)
    {
        file.set_len(job.size)
            .map_err(|e| Error::io("shorten", &job.part, e))?;
    }
    drop(file);
    report.at(Phase::Downloading, &job.file, done.total());
    let connections = options.connections.max(1);
    let piece = (job.size / (connections as u64 * 4))
        .min(64 << 20)
        .max(options.range_bytes);
    let mut queue = done.missing(job.size, piece);
    if queue.is_empty() {
        return Ok(());
    }
    queue.reverse();
    let pieces = queue.len();
    let shared = Arc::new(Shared {
        job: job.clone(),
        client: client.clone(),
        options: options.clone(),
        progress: Mutex::new(Progress {
            queue,
            done,
            location: None,
            whole: false,
        }),
        stopped: RwLock::new(false),
        cancel: CancelToken::new(),
    });
    let (sender, messages) = mpsc::channel();
    let start = |sender: &mpsc::Sender<Message>| {
        let (shared, sender) = (shared.clone(), sender.clone());
        std::thread::spawn(move || {
            let sentinel = Sentinel(sender);
            if let Err(e) = shared.work(&sentinel.0) {
                // As above.
                let _ = sentinel.0.send(Message::Failed(e));
            }
        });
    };
    start(&sender);
    let (mut running, mut started) = (1, 1);
    let mut failed = None;
    let mut saved = Instant::now();
    while running > 0 {
        match messages.recv_timeout(Duration::from_millis(50)) {
            Ok(Message::Ranges) => {
                while started < connections.min(pieces) {
                    start(&sender);
                    (running, started) = (running + 1, started + 1);
                }
            }
            Ok(Message::Failed(e)) => failed = failed.or(Some(e)),
            Ok(Message::Gone) => running -= 1,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        failed = failed.or_else(|| cancel.check().err());
        let total = shared.progress().done.total();
        report.at(Phase::Downloading, &job.file, total);
        if failed.is_some() {
            break;
        }
        if saved.elapsed() >= SAVE_EVERY {
            failed = shared.save().err();
            saved = Instant::now();
        }
    }
    // Workers may sit in a read until its timeout; none of them writes after this.
    shared.cancel.cancel();
    *shared
        .stopped
        .write()
        .unwrap_or_else(PoisonError::into_inner) = true;
    let saved = shared.save();
    if let Some(e) = failed {
        return Err(e);
    }
    saved?;
    let got = shared.progress().done.total();
    if got == job.size {
        return Ok(());
    }
    // A hole would go unseen where no hash is known.
    let (file, total) = (job.file.clone(), Some(job.size));
    Err(Error::Interrupted {
        file,
        got,
        total,
        reason: "a worker ended early".into(),
    })
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) -> Result<()> {
        let done = self.progress().done.clone();
        ranges::save(&self.job.state, &self.job.identity, self.job.size, &done)
    }

    fn work(&self, sender: &mpsc::Sender<Message>) -> Result<()> {
        let open = OpenOptions::new().write(true).open(&self.job.part);
        let mut file = open.map_err(|e| Error::io("open", &self.job.part, e))?;
        loop {
            let Some((start, end)) = self.progress().queue.pop() else {
                return Ok(());
            };
            self.piece(&mut file, start, end, sender)?;
        }
    }

    /// Fetches `start..end`, going on from where it breaks off.
    fn piece(
        &self,
        file: &mut File,
        start: u64,
        end: u64,
        sender: &mpsc::Sender<Message>,
    ) -> Result<()> {
        let mut at = start;
        let mut failures = 0;
        while at < end {
            let before = at;
            let Err(failure) = self.exchange(file, &mut at, end, sender) else {
                if self.progress().whole {
                    return Ok(());
                }
                continue;
            };
            self.cancel.check()?;
            if !failure.transient {
                return Err(failure.error);
            }
            failures = if at > before { 1 } else { failures + 1 };
            if failures > self.options.retries {
                return Err(self.interrupted(failure.error));
            }
            let time = failure.wait.unwrap_or(self.client.pause_after(failures));
            pause(time, &self.cancel)?;
        }
        Ok(())
    }

    fn interrupted(&self, error: Error) -> Error {
        match error {
            // These say better themselves what is wrong.
            e @ Error::Http { .. } => e,
            e => Error::Interrupted {
                file: self.job.file.clone(),
                got: self.progress().done.total(),
                total: Some(self.job.size),
                reason: e.to_string(),
            },
        }
    }

    /// One request and the reading of its answer; `at` moves on with every write.
    fn exchange(
        &self,
        file: &mut File,
        at: &mut u64,
        end: u64,
        sender: &mpsc::Sender<Message>,
    ) -> Result<(), Failure> {
        self.cancel.check()?;
        let known = self.progress().location.clone();
        let request = Request {
            head: false,
            url: known.clone().unwrap_or_else(|| self.job.url.clone()),
            range: Some((*at, end - 1)),
            follow: Follow::Everywhere,
        };
        let reply = self.client.send(&request)?;
        let size = self.job.size;
        match reply.status {
            206 => {
                self.check_range(&reply, *at)?;
                if reply.url != self.job.url {
                    self.progress().location = Some(reply.url.clone());
                }
                // The receiver is gone after a stop.
                let _ = sender.send(Message::Ranges);
                self.copy(file, reply, at, end)
            }
            200 => {
                if let Some(got) = reply.content_length().filter(|n| *n != size) {
                    return Err(self.wrong_size(&reply, got).into());
                }
                {
                    let mut progress = self.progress();
                    if progress.whole {
                        *at = end;
                        return Ok(());
                    }
                    progress.whole = true;
                    progress.queue.clear();
                }
                let mut whole_at = 0;
                let result = self.copy(file, reply, &mut whole_at, size);
                if result.is_err() {
                    // Whoever asks next may get ranges after all; what arrived stays.
                    *at = whole_at.clamp(*at, end);
                    let mut progress = self.progress();
                    let mut taken = progress.done.clone();
                    taken.insert(*at, end);
                    progress.queue = taken.missing(size, u64::MAX);
                    progress.whole = false;
                }
                result
            }
            416 => Err(self.wrong_size(&reply, 0).into()),
            status if is_transient(status) => Err(busy(&reply)),
            status @ (401 | 403 | 404 | 410) if known.is_some() => {
                // A signed address has run out: ask the hub for a new one.
                self.progress().location = None;
                let error = Error::Http {
                    url: shown(&reply.url),
                    status,
                    fix: String::new(),
                };
                Err(Failure {
                    error,
                    transient: true,
                    wait: Some(Duration::ZERO),
                })
            }
            status => {
                let url = shown(&reply.url);
                Err(Error::Http {
                    url,
                    status,
                    fix: super::hub::advice(&reply, &self.job.file),
                }
                .into())
            }
        }
    }

    fn wrong_size(&self, reply: &Reply, got: u64) -> Error {
        let origin = shown(&reply.url);
        Error::WrongSize {
            file: self.job.file.clone(),
            expected: self.job.size,
            got,
            origin,
        }
    }

    /// A 206 must begin where we asked, and be of a file as long as we think.
    fn check_range(&self, reply: &Reply, at: u64) -> Result<()> {
        let header = reply.header("content-range").unwrap_or_default();
        let parsed = header.strip_prefix("bytes ").and_then(|rest| {
            let (range, total) = rest.split_once('/')?;
            let (first, _) = range.split_once('-')?;
            Some((first.trim().parse::<u64>().ok()?, total.trim().to_owned()))
        });
        let size = self.job.size.to_string();
        match parsed {
            Some((first, total)) if first == at && (total == size || total == "*") => Ok(()),
            Some((first, total)) if first == at => match total.parse() {
                Ok(got) => Err(self.wrong_size(reply, got)),
                Err(_) => Err(bad_range(reply, header, at)),
            },
            _ => Err(bad_range(reply, header, at)),
        }
    }

    /// Copies the body to `at..end` of the file.
    fn copy(&self, file: &mut File, reply: Reply, at: &mut u64, end: u64) -> Result<(), Failure> {
        let url = shown(&reply.url);
        let transient = |reason: String| Failure {
            error: Error::malformed(url.clone(), reason),
            transient: true,
            wait: None,
        };
        let mut body = reply.body.into_reader();
        let mut buffer = vec![0; 64 << 10];
        while *at < end {
            let room = usize::try_from(end - *at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let got = match body.read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Err(transient(format!("the connection ended at byte {at}"))),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(transient(format!("at byte {at}: {e}"))),
            };
            self.write(file, *at, buffer.get(..got).unwrap_or_default())?;
            *at += got as u64;
        }
        Ok(())
    }

    fn write(&self, file: &mut File, at: u64, data: &[u8]) -> Result<()> {
        let stopped = self.stopped.read().unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return Err(Error::Cancelled);
        }
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(data))
            .map_err(|e| {
                let missing = self.job.size.saturating_sub(self.progress().done.total());
                write_error(&self.options, &self.job.part, missing, e)
            })?;
        self.progress().done.insert(at, at + data.len() as u64);
        Ok(())
    }
}

fn bad_range(reply: &Reply, header: &str, at: u64) -> Error {
    Error::malformed(
        shown(&reply.url),
        format!("HTTP 206 with Content-Range {header:?} where byte {at} was asked for"),
    )
}

/// The partial file and its ranges beside `dest`.
pub(crate) fn partial_names(dest: &Path) -> (PathBuf, PathBuf) {
    (
        super::disk::append(dest, ".firelight.incomplete"),
        super::disk::append(dest, ".firelight.json"),
    )
}
