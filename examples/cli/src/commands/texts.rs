//! Texts to work on: arguments, files, lines.

use anyhow::{Context, Result, ensure};
use std::io::{IsTerminal, Read};

/// The largest input: beyond it something else was meant.
const MAX_BYTES: u64 = 1 << 30;

/// Where the texts come from.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Texts")]
pub(crate) struct TextsArgs {
    /// Texts, one per argument; none at all: the lines of standard input
    #[arg(value_name = "TEXT")]
    pub(crate) texts: Vec<String>,
    /// A file with one text per line, `-` for standard input; can be given several times
    #[arg(short, long, value_name = "FILE")]
    pub(crate) lines: Vec<String>,
    /// A file that is one text, `-` for standard input; can be given several times
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<String>,
}

/// One text and where it is from.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// `FILE` or `FILE:LINE`; nothing for an argument.
    pub(crate) origin: Option<String>,
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl TextsArgs {
    /// True if nothing was named: the texts are on standard input.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.lines.is_empty() && self.file.is_empty()
    }

    /// Reads them all; empty lines are left out.
    pub(crate) fn read(&self) -> Result<Vec<Text>> {
        let mut found: Vec<Text> = self.texts.iter().map(|t| Text::argument(t)).collect();
        for name in &self.lines {
            found.extend(lines(name)?);
        }
        for name in &self.file {
            let origin = Some(shown(name).to_owned());
            found.push(Text {
                text: read(name)?,
                origin,
            });
        }
        if self.is_empty() {
            ensure!(
                !std::io::stdin().is_terminal(),
                "no texts: give them as arguments, with --lines FILE or --file FILE, or on standard input"
            );
            found = lines("-")?;
        }
        ensure!(!found.is_empty(), "no texts: every line is empty");
        Ok(found)
    }
}

impl Text {
    pub(crate) fn argument(text: &str) -> Self {
        Text {
            text: text.to_owned(),
            origin: None,
        }
    }

    /// The beginning of the text on one line, for people.
    pub(crate) fn short(&self, columns: usize) -> String {
        let line: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = crate::format::harmless(&line);
        if line.chars().count() <= columns {
            return line;
        }
        let cut: String = line.chars().take(columns.saturating_sub(1)).collect();
        format!("{cut}…")
    }
}

fn shown(name: &str) -> &str {
    if name == "-" { "standard input" } else { name }
}

/// The lines of a file that are not empty.
pub(crate) fn lines(name: &str) -> Result<Vec<Text>> {
    let text = read(name)?;
    let lines = text.lines().enumerate();
    Ok(lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| Text {
            text: line.to_owned(),
            origin: Some(format!("{}:{}", shown(name), i + 1)),
        })
        .collect())
}

/// A file or standard input as UTF-8.
pub(crate) fn read(name: &str) -> Result<String> {
    let unread = || format!("cannot read {} as UTF-8 text", shown(name));
    let limited = |reader: &mut dyn Read| -> Result<String> {
        let mut text = String::new();
        reader
            .take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .with_context(unread)?;
        ensure!(
            text.len() as u64 <= MAX_BYTES,
            "{} has more than {}",
            shown(name),
            crate::format::bytes(MAX_BYTES)
        );
        Ok(text)
    };
    if name == "-" {
        return limited(&mut std::io::stdin().lock());
    }
    limited(&mut std::fs::File::open(name).with_context(unread)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lines_and_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.txt");
        std::fs::write(&path, "one\n\n two \n").expect("written");
        let name = path.display().to_string();
        let args = TextsArgs {
            texts: vec!["zero".into()],
            lines: vec![name.clone()],
            file: vec![name.clone()],
        };
        let read = args.read().expect("texts");
        let texts: Vec<&str> = read.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(texts, ["zero", "one", " two ", "one\n\n two \n"]);
        assert_eq!(
            read[2].origin.as_deref(),
            Some(format!("{name}:3").as_str())
        );
        assert_eq!(read[3].short(6), "one t…");
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(lines(&name).is_err());
    }
}
