//! The program `firelight`: chat with a local model, manage models, check a device, measure.
//!
//! One file per command under [`commands`]; what they share:
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | flags that several commands take |
//! | [`load`] | from a model's name to a model on a device |
//! | [`ui`], [`progress`], [`json`] | what is shown: text, progress line, JSON lines |
//! | [`interrupt`] | Ctrl-C |
//! | [`mod@format`] | bytes, times and tables for people |
//! | [`npy`] | vectors for NumPy |
//! | [`pictures`], [`spark`] | pictures from files, the model in the program that sees them |
//!
//! Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
#![deny(unsafe_code)]

mod args;
mod commands;
mod format;
mod interrupt;
mod json;
mod load;
mod npy;
mod pictures;
mod progress;
mod spark;
mod ui;

use clap::{CommandFactory, Parser};
use commands::Command;
use std::process::ExitCode;

/// Done.
const OK: u8 = 0;
/// Failed.
const FAILED: u8 = 1;
/// Interrupted by the user.
const INTERRUPTED: u8 = 130;

/// Local models on your own GPU or CPU.
#[derive(Parser)]
#[command(name = "firelight", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  firelight chat \"Why is the sky blue?\"     one answer; the model is fetched on first use
  firelight chat                            a conversation
  firelight describe photo.jpg              what is in a picture; also: chat --image
  firelight embed \"A cat sleeps.\"           texts as vectors; also: similar, classify, rerank, ner
  firelight transcribe talk.mp3             what is said in a recording
  firelight search photos/ \"red bicycle\"    pictures by what is on them; also: embed --image, classify
  firelight models list                     what there is, and what is here
  firelight doctor                          which device runs, and why
  firelight bench                           how fast it is here; also: tune
  firelight web --open                      the same in the browser

Environment:
  FIRELIGHT_CACHE     folder for models (else the platform's cache folder)
  FIRELIGHT_SOURCES   where models are looked for, in this order: hub,package
  FIRELIGHT_OFFLINE   1: no network at all
  HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE   as every hub client reads them";

fn main() -> ExitCode {
    quiet_vulkan();
    let cli = Cli::parse();
    let json = cli.command.json();
    match cli.command.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error, json),
    }
}

/// Where there is no screen, a layer of Mesa's Vulkan drivers that chooses a GPU by screen writes "error: XDG_RUNTIME_DIR is
/// invalid" to standard error. It is switched off there, unless the user chose a GPU through it.
#[allow(unsafe_code)]
fn quiet_vulkan() {
    let unset = |name: &str| std::env::var_os(name).is_none();
    let screenless = ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"]
        .into_iter()
        .all(unset);
    if cfg!(target_os = "linux") && screenless && unset("MESA_VK_DEVICE_SELECT") {
        // SAFETY: called first in main, when no other thread is there that could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// Tells what went wrong, and maps it to an exit code.
fn fail(error: &anyhow::Error, json: bool) -> ExitCode {
    progress::leave_line();
    if let Some(usage) = error.downcast_ref::<Usage>() {
        Cli::command()
            .error(clap::error::ErrorKind::ValueValidation, &usage.0)
            .exit();
    }
    // The reader of our output went away, as `| head` does: nothing is wrong.
    if ui::is_broken_pipe(error) {
        return ExitCode::from(OK);
    }
    let interrupted = is_cancelled(error);
    let message = if interrupted {
        interrupt::MESSAGE.to_owned()
    } else {
        ui::chain(error)
    };
    if json {
        // If even that cannot be written, the exit code still tells.
        let _ = json::print(&json::Event::Error { message: &message });
    }
    ui::to_stderr(&if interrupted {
        message
    } else {
        format!("error: {message}")
    });
    ExitCode::from(if interrupted { INTERRUPTED } else { FAILED })
}

/// The arguments do not fit together in a way that clap cannot see.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn is_cancelled(error: &anyhow::Error) -> bool {
    use firelight_runtime::{Error, source};
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(Error::Cancelled | Error::Source(source::Error::Cancelled))
        ) || matches!(cause.downcast_ref(), Some(source::Error::Cancelled))
    })
}
