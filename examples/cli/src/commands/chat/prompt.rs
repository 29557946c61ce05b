//! Where the question comes from: the command line, standard input, or both.

use crate::Usage;
use crate::ui::Ui;
use anyhow::{Context, Result};
use std::io::{BufRead, IsTerminal, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long a question waits for the first byte of standard input that may never come (many programs start others with an
/// open pipe that nobody writes to). It is read while the model loads; this comes on top.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the reader of standard input tells.
enum Input {
    /// There is something; the rest follows.
    Begun,
    /// All of it.
    All(std::io::Result<String>),
}

/// A question on its way.
pub(super) struct Prompt {
    /// From the command line.
    asked: Option<String>,
    /// From standard input, unless that is a terminal.
    input: Option<Receiver<Input>>,
}

impl Prompt {
    /// The question of the command line and standard input; `None` if a person is to type it.
    pub(super) fn find(asked: Option<&str>) -> Option<Prompt> {
        let asked = asked.filter(|a| *a != "-" || std::io::stdin().is_terminal());
        let piped = !std::io::stdin().is_terminal();
        if asked.is_none() && !piped {
            return None;
        }
        Some(Prompt {
            asked: asked.map(str::to_owned),
            input: piped.then(read),
        })
    }

    /// True if there is a question without standard input.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.as_ref().is_some_and(|a| !a.trim().is_empty())
    }

    /// The question. Waits for standard input.
    pub(super) fn text(&self, ui: &Ui) -> Result<String> {
        let input = match (&self.input, &self.asked) {
            (None, _) => String::new(),
            (Some(input), None) => wait(input, None)?.unwrap_or_default(),
            (Some(input), Some(_)) => wait(input, Some(PATIENCE))?.unwrap_or_else(|| {
                ui.note("nothing came from standard input: the question is taken alone (`-` instead of it waits)");
                String::new()
            }),
        };
        // As a shell's `$(…)` does.
        let input = input.strip_suffix('\n').unwrap_or(&input);
        let input = input.strip_suffix('\r').unwrap_or(input);
        let text = match (&self.asked, input) {
            (Some(asked), "") => asked.clone(),
            (Some(asked), input) => format!("{asked}\n\n{input}"),
            (None, input) => input.to_owned(),
        };
        if text.trim().is_empty() {
            return Err(Usage("the prompt is empty".to_owned()).into());
        }
        Ok(text)
    }
}

fn read() -> Receiver<Input> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let begun = stdin.fill_buf().map(|_| ());
        let _ = send.send(Input::Begun);
        let mut text = String::new();
        let all = begun
            .and_then(|()| stdin.read_to_string(&mut text))
            .map(|_| text);
        // Nobody listens any more if the question went on without.
        let _ = send.send(Input::All(all));
    });
    receive
}

/// All of standard input; `None` if there is nothing within `patience`.
fn wait(input: &Receiver<Input>, patience: Option<Duration>) -> Result<Option<String>> {
    let mut next = match patience {
        Some(limit) => input.recv_timeout(limit),
        None => input.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    loop {
        match next {
            Ok(Input::Begun) => next = input.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Ok(Input::All(text)) => {
                return text
                    .map(Some)
                    .context("cannot read standard input as UTF-8 text");
            }
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("standard input could not be read")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Show;

    fn asked(question: Option<&str>, sent: Vec<Input>) -> Result<String> {
        let (send, receive) = channel();
        for part in sent {
            send.send(part).unwrap();
        }
        let prompt = Prompt {
            asked: question.map(str::to_owned),
            input: Some(receive),
        };
        prompt.text(&Ui::new(Show::Nothing))
    }

    #[test]
    fn question_and_input_are_joined() {
        let input = |text: &str| vec![Input::Begun, Input::All(Ok(text.to_owned()))];
        assert_eq!(
            asked(Some("Sum up:"), input("a\nb\n")).unwrap(),
            "Sum up:\n\na\nb"
        );
        assert_eq!(asked(None, input("a\r\n")).unwrap(), "a");
        assert_eq!(asked(Some("q"), input("")).unwrap(), "q");
        assert!(asked(None, input("\n")).unwrap_err().is::<Usage>());
        let bad = std::io::Error::other("not UTF-8");
        assert!(asked(Some("q"), vec![Input::Begun, Input::All(Err(bad))]).is_err());
    }

    #[test]
    fn a_silent_pipe_does_not_hold_a_question_up() {
        let (send, receive) = channel();
        let prompt = Prompt {
            asked: Some("q".into()),
            input: Some(receive),
        };
        assert_eq!(prompt.text(&Ui::new(Show::Nothing)).unwrap(), "q");
        drop(send);
    }
}
