//! Runs the user's own pip or npm, watches how much it has fetched, and stops it when asked.
use crate::catalogue::Member;
use crate::source::disk::folder_bytes;
use crate::source::{CancelToken, Error, Options, Result};
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A package client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Pip,
    Npm,
}

/// Folders for a client to use.
pub(super) struct Places<'a> {
    /// Takes the archive.
    pub(super) to: &'a Path,
    /// Takes what the client writes meanwhile; emptied by the caller.
    pub(super) temporary: &'a Path,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Pip => "whl",
            Self::Npm => "tgz",
        }
    }

    /// The exact version, as the client writes it.
    pub(super) fn spec(self, member: &Member) -> String {
        match self {
            Self::Pip => format!("{}=={}", member.name, member.version),
            Self::Npm => format!("{}@{}", member.name, member.version),
        }
    }

    fn install_hint(self) -> &'static str {
        match self {
            Self::Pip => {
                "install Python 3 with pip (Debian: apt-get install python3-pip), or point FIRELIGHT_SOURCES to another source"
            }
            Self::Npm => {
                "install Node.js with npm (Debian: apt-get install npm), or point FIRELIGHT_SOURCES to another source"
            }
        }
    }

    fn arguments(self, member: &Member, to: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = match self {
            Self::Pip => [
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-cache-dir",
            ]
            .iter()
            .chain(&[
                "--ignore-requires-python",
                "--disable-pip-version-check",
                "--no-input",
            ])
            .chain(&["--progress-bar", "off", "-d"])
            .map(OsString::from)
            .collect(),
            Self::Npm => [
                "pack",
                "--ignore-scripts",
                "--no-audit",
                "--no-update-notifier",
            ]
            .iter()
            .chain(&["--pack-destination"])
            .map(OsString::from)
            .collect(),
        };
        arguments.push(to.into());
        arguments.push(self.spec(member).into());
        arguments
    }
}

/// Downloads one package with the first client that is installed. `step` is told the bytes so far.
pub(super) fn download(
    options: &Options,
    tool: Tool,
    member: &Member,
    places: &Places<'_>,
    cancel: &CancelToken,
    mut step: impl FnMut(u64),
) -> Result<()> {
    let commands = match tool {
        Tool::Pip => &options.pip,
        Tool::Npm => &options.npm,
    };
    for words in commands {
        let Some((program, first)) = words.split_first() else {
            continue;
        };
        let mut command = Command::new(program);
        command.args(first).args(tool.arguments(member, places.to));
        for name in ["TMPDIR", "TEMP", "TMP"] {
            command.env(name, places.temporary);
        }
        match tool {
            // A newer pip resumes by itself within one run; an older one ignores the variable.
            Tool::Pip => command.env("PIP_RESUME_RETRIES", "5"),
            // What npm caches goes where it can be watched, and away afterwards.
            Tool::Npm => command.env("npm_config_cache", places.temporary),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = match command.spawn() {
            Ok(child) => Running(child),
            Err(_) => continue,
        };
        let limit = member.download_size + member.download_size / 4 + (16 << 20);
        let (status, output) = watch(child, tool, member, places, cancel, limit, &mut step)?;
        // A launcher may be there without the client behind it.
        let absent = status.code() == Some(127)
            || (status.code() == Some(1) && output.contains("No module named pip"));
        if absent {
            continue;
        }
        if status.success() {
            return Ok(());
        }
        // An interrupt from the terminal reaches the client first.
        std::thread::sleep(Duration::from_millis(100));
        cancel.check()?;
        let line =
            std::iter::once(program.as_os_str()).chain(first.iter().map(OsString::as_os_str));
        let line = line
            .map(|w| w.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        return Err(Error::ToolFailed {
            command: format!("{line} … {}", tool.spec(member)),
            status: status.to_string(),
            output: if output.is_empty() {
                "it printed nothing".into()
            } else {
                output
            },
        });
    }
    Err(Error::MissingTool {
        tool: tool.name().into(),
        fix: tool.install_hint().into(),
    })
}

/// Ends its process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(
    mut child: Running,
    tool: Tool,
    member: &Member,
    places: &Places<'_>,
    cancel: &CancelToken,
    limit: u64,
    step: &mut impl FnMut(u64),
) -> Result<(ExitStatus, String)> {
    let errors = child.0.stderr.take();
    let reader = std::thread::spawn(move || errors.map(last_words).unwrap_or_default());
    let status = loop {
        cancel.check()?;
        let got = folder_bytes(places.temporary).max(folder_bytes(places.to));
        step(got);
        if got > limit {
            let what = format!("download of {}", tool.spec(member));
            return Err(Error::Limit {
                what,
                max: limit,
                got,
            });
        }
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => return Err(Error::io("wait for", Path::new(tool.name()), e)),
        }
    };
    // A grandchild may keep the pipe open after the client is gone; then its words are not waited for.
    for _ in 0..20 {
        if reader.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = if reader.is_finished() {
        reader.join().unwrap_or_default()
    } else {
        String::new()
    };
    Ok((status, output))
}

/// The end of what a client wrote to its error stream, at most 2 kB.
fn last_words(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..n).unwrap_or_default());
        let extra = kept.len().saturating_sub(2048);
        kept.drain(..extra);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
