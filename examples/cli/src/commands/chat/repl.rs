//! The conversation: questions from the keyboard, the model's cache kept between them.

use super::{ChatArgs, answer, kept, start};
use crate::args::random_seed;
use crate::load::Ready;
use crate::ui::{self, Ui};
use crate::{INTERRUPTED, OK, format, interrupt, pictures};
use anyhow::{Context, Result};
use firelight_runtime::{Answer, Finish, GenerateOptions, MediaKind, Medium, Message, Session};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::path::Path;

const HELP: &str = "\
/system TEXT   what the model should know or be; begins a new conversation (without TEXT: take it away)
/image FILE    a picture for the next question
/reset         begin a new conversation
/regenerate    answer the last question again
/stats         tokens, memory, speed, device
/help          this
/quit          leave (also Ctrl-D)
A line that ends in \\ goes on in the next one. Ctrl-C ends an answer; twice within two seconds ends the program.";

/// What a line means.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Ask(&'a str),
    System(&'a str),
    Image(&'a str),
    Reset,
    Regenerate,
    Stats,
    Help,
    Quit,
    Nothing,
    Unknown(&'a str),
}

fn understand(line: &str) -> Line<'_> {
    let text = line.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match word {
        "" => Line::Nothing,
        "/system" => Line::System(rest.trim()),
        "/image" => Line::Image(rest.trim()),
        "/reset" => Line::Reset,
        "/regenerate" => Line::Regenerate,
        "/stats" => Line::Stats,
        "/help" | "/?" => Line::Help,
        "/quit" | "/exit" | "/bye" => Line::Quit,
        // A path or a comment is no command.
        w if w
            .strip_prefix('/')
            .is_some_and(|w| w.chars().all(char::is_alphabetic))
            && rest.is_empty() =>
        {
            Line::Unknown(word)
        }
        _ => Line::Ask(text),
    }
}

/// A conversation under way.
struct Talk<'a> {
    args: &'a ChatArgs,
    ready: Ready,
    session: Session,
    options: GenerateOptions,
    /// What was said, the system message excepted.
    messages: Vec<Message>,
    /// With `--raw`: the text so far.
    text: String,
    system: Option<String>,
    /// Pictures for the next question.
    pictures: Vec<Medium>,
    last: Option<Answer>,
}

pub(super) fn run(args: &ChatArgs, ui: &mut Ui) -> Result<u8> {
    // The editor takes signals over while it exists; ours come after it.
    let mut editor = DefaultEditor::new()
        .context("cannot use this terminal; give a prompt: firelight chat \"…\"")?;
    interrupt::install()?;
    let (ready, session, options) = start(args, ui)?;
    ui.note("/help says what can be done besides asking; Ctrl-D leaves");
    let mut talk = Talk {
        args,
        ready,
        session,
        options,
        messages: Vec::new(),
        text: String::new(),
        system: args.system.clone(),
        pictures: Vec::new(),
        last: None,
    };
    for path in &args.image {
        talk.look(path)?;
    }
    let left = talk.all(&mut editor, ui)?;
    kept::close(args, &mut talk.session, ui)?;
    Ok(left)
}

/// A line, or several joined where each but the last ends in a backslash.
fn read(editor: &mut DefaultEditor) -> Result<String, ReadlineError> {
    let mut text = editor.readline("> ")?;
    while text.ends_with('\\') {
        text.pop();
        text.push('\n');
        text.push_str(&editor.readline("… ")?);
    }
    Ok(text)
}

impl Talk<'_> {
    /// Everything until the user leaves.
    fn all(&mut self, editor: &mut DefaultEditor, ui: &mut Ui) -> Result<u8> {
        loop {
            let line = match read(editor) {
                Ok(line) => line,
                Err(ReadlineError::Eof) => return Ok(OK),
                Err(ReadlineError::Interrupted) if interrupt::pressed_again() => {
                    return Ok(INTERRUPTED);
                }
                Err(ReadlineError::Interrupted) => {
                    ui::to_stderr("Ctrl-C again or /quit leaves");
                    continue;
                }
                Err(e) => return Err(e).context("cannot read from the terminal"),
            };
            // Failing to remember a line is no reason to stop.
            let _ = editor.add_history_entry(line.as_str());
            let done = match understand(&line) {
                Line::Quit => return Ok(OK),
                Line::Nothing => Ok(()),
                Line::Help => ui::to_stdout(&format!("{HELP}\n")),
                Line::Unknown(word) => {
                    ui::to_stderr(&format!("{word} is no command; /help lists them"));
                    Ok(())
                }
                Line::Reset => {
                    self.reset();
                    ui::to_stderr("a new conversation");
                    Ok(())
                }
                Line::System(text) => {
                    self.system = (!text.is_empty()).then(|| text.to_owned());
                    self.reset();
                    ui::to_stderr("a new conversation");
                    Ok(())
                }
                Line::Image(file) => self.look(Path::new(file)).map(|()| {
                    ui::to_stderr("a picture for the next question");
                }),
                Line::Stats => ui::to_stdout(&self.stats()),
                Line::Regenerate => self.regenerate(ui),
                Line::Ask(text) => self.ask(text, ui),
            };
            if let Err(e) = done {
                if ui::is_broken_pipe(&e) {
                    return Err(e);
                }
                // The conversation goes on without the question that failed.
                ui::to_stderr(&match answer::is_context_full(&e) {
                    true => format!(
                        "the conversation is too long for the model ({e}); /reset begins a new one"
                    ),
                    false => format!("error: {}", ui::chain(&e)),
                });
            }
        }
    }

    fn reset(&mut self) {
        self.messages.clear();
        self.options.media.clear();
        self.pictures.clear();
        self.text.clear();
        self.session.state().clear();
    }

    /// Takes a picture for the next question.
    fn look(&mut self, path: &Path) -> Result<()> {
        let sees = self.session.model().model.tower(MediaKind::Image).is_some();
        anyhow::ensure!(
            sees,
            "{} takes no pictures; firelight chat --image FILE takes a model that does",
            self.ready.local.name
        );
        self.pictures.push(pictures::open(path)?);
        Ok(())
    }

    fn ask(&mut self, text: &str, ui: &mut Ui) -> Result<()> {
        let before = (
            self.messages.len(),
            self.text.len(),
            self.options.media.len(),
        );
        let new = std::mem::take(&mut self.pictures);
        self.messages
            .push(pictures::question(text.to_owned(), new.len()));
        self.options.media.extend(new);
        self.text.push_str(text);
        let done = self.answer(ui);
        if done.is_err() {
            self.messages.truncate(before.0);
            self.text.truncate(before.1);
            self.pictures = self.options.media.split_off(before.2);
        }
        done
    }

    fn regenerate(&mut self, ui: &mut Ui) -> Result<()> {
        let Some(last) = self.last.as_ref().filter(|_| self.messages.len() >= 2) else {
            anyhow::bail!("there is no answer yet");
        };
        let kept = self.text.len().saturating_sub(last.text.len());
        let (said, text) = (self.messages.pop(), self.text.split_off(kept));
        // The same seed would give the same answer.
        self.options.sampling.seed = random_seed();
        let done = self.answer(ui);
        if done.is_err() {
            self.messages.extend(said);
            self.text.push_str(&text);
        }
        done
    }

    fn answer(&mut self, ui: &mut Ui) -> Result<()> {
        let ids = if self.args.raw {
            self.session.model().text.encode_text(&self.text)?
        } else {
            let system = self.system.iter().map(|s| Message::system(s.as_str()));
            let messages: Vec<Message> = system.chain(self.messages.iter().cloned()).collect();
            answer::prompt(&mut self.session, &messages, &self.options, ui)?
        };
        let answer = answer::stream(&mut self.session, &ids, &self.options, ui)?;
        let report = self.ready.engine.report();
        ui.note(&answer::summary(&answer, &self.options, &report));
        if answer.finish == Finish::Context {
            ui::to_stderr("the context is full; /reset begins a new conversation");
        }
        self.messages.push(Message::assistant(answer.text.as_str()));
        self.text.push_str(&answer.text);
        self.last = Some(answer);
        Ok(())
    }

    fn stats(&mut self) -> String {
        let report = self.ready.engine.report();
        let memory = self.session.model().device.memory();
        let context = self
            .session
            .model()
            .model
            .spec()
            .context
            .min(self.options.context.unwrap_or(usize::MAX));
        let state = self.session.state();
        let (used, cache) = (state.ids().len(), state.cache_bytes());
        let row = |what: &str, value: String| vec![what.to_owned(), value];
        let mut rows = vec![
            row(
                "model",
                format!(
                    "{}, loaded in {}",
                    self.ready.local.name,
                    format::seconds(self.ready.load_time.as_secs_f64())
                ),
            ),
            row(
                "device",
                format!("{} (rung {})", report.device, report.rung),
            ),
            row("context", format!("{used} of {context} tokens")),
            row(
                "memory",
                format!(
                    "{}, of it {} cache",
                    format::bytes(memory.total_bytes()),
                    format::bytes(cache)
                ),
            ),
        ];
        if let Some(last) = &self.last {
            let reused = last.prompt_ids.len().saturating_sub(last.prefilled);
            rows.push(row(
                "last prompt",
                format!(
                    "{} tokens, {reused} still in the cache",
                    last.prompt_ids.len()
                ),
            ));
            rows.push(row(
                "last answer",
                answer::summary(last, &self.options, &report),
            ));
        }
        format::table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_questions() {
        for (line, meaning) in [
            ("  ", Line::Nothing),
            ("/quit ", Line::Quit),
            ("/system  be  brief", Line::System("be  brief")),
            ("/system", Line::System("")),
            ("/image a b.png", Line::Image("a b.png")),
            ("/rest", Line::Unknown("/rest")),
            ("/usr/bin/ls is what?", Line::Ask("/usr/bin/ls is what?")),
            ("/etc is what?", Line::Ask("/etc is what?")),
            ("hello /quit", Line::Ask("hello /quit")),
        ] {
            assert_eq!(understand(line), meaning, "{line:?}");
        }
    }
}
