//! `firelight listen`: speech to text while it is spoken, and spoken commands.

mod live;

use super::sound::{self, SoundArgs};
use crate::args::EngineArgs;
use crate::ui::{self, Ui};
use crate::{INTERRUPTED, OK, Usage, format, interrupt, json, load};
use anyhow::{Context, Result};
use firelight_audio::Resampler;
use firelight_runtime::CancelToken;
use firelight_runtime::pipelines::commands::Commands;
use firelight_runtime::pipelines::listen::{Event, Listener, Options, Sooner};
use live::Live;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListenArgs {
    /// A recording that is played at the speed of time; `-` is a recording on standard input
    #[arg(value_name = "FILE")]
    #[cfg_attr(feature = "microphone", arg(required_unless_present = "microphone"))]
    #[cfg_attr(not(feature = "microphone"), arg(required = true))]
    file: Option<PathBuf>,
    /// FILE is `-` and gives bare samples as they are spoken: 16 bits, little-endian, mono, at so many Hz
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(1000..=768_000))]
    raw: Option<u32>,
    /// Listen to the microphone
    #[cfg(feature = "microphone")]
    #[arg(long, conflicts_with_all = ["file", "raw"])]
    microphone: bool,
    /// Listen to the microphone whose name contains this
    #[cfg(feature = "microphone")]
    #[arg(long, value_name = "NAME", requires = "microphone")]
    input: Option<String>,
    /// Do not wait: as fast as it goes
    #[arg(long)]
    no_wait: bool,
    /// A name of `firelight models list`, a model's folder, or `hf:OWNER/REPO[@REVISION]`
    #[arg(short, long, value_name = "MODEL", default_value = "whisper-tiny.en")]
    model: String,
    /// Code of the language [default: the model decides, anew for each utterance]
    #[arg(short, long, value_name = "CODE")]
    language: Option<String>,
    /// Spoken commands: a JSON list of {"phrase": …, "action": …}; what is none is not told
    #[arg(long, value_name = "FILE")]
    commands: Option<PathBuf>,
    /// A pause that ends an utterance, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(100..=10_000))]
    pause: u32,
    /// The same after a whole phrase of --commands that no more words would change
    #[arg(long, value_name = "MS", default_value_t = 200, requires = "commands", value_parser = clap::value_parser!(u32).range(100..=10_000))]
    command_pause: u32,
    /// The same after text that ends a sentence [default: as --pause]
    #[arg(long, value_name = "MS", conflicts_with = "commands", value_parser = clap::value_parser!(u32).range(100..=10_000))]
    sentence_pause: Option<u32>,
    /// Text after so many milliseconds of new sound, before the utterance ends; 0: none [default: 1000, with --commands 0]
    #[arg(long, value_name = "MS")]
    partial: Option<u32>,
    /// Tell speech by Silero's model instead of by loudness: `silero-vad`, or its file
    #[arg(long, value_name = "MODEL")]
    vad_model: Option<String>,
    /// Words to be expected
    #[arg(long, value_name = "TEXT")]
    hotwords: Option<String>,
    /// Let the model hear each utterance in its whole window, as it was trained: slower
    #[arg(long)]
    whole_window: bool,
    #[command(flatten)]
    sound: SoundArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// JSON lines: {"event":"start"|"partial"|"final"|"action",…}
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
A phrase's (a|b) is one of several, [a] may be there, {name} is some words, {name:a|b} one of several under a name:
  [{ \"phrase\": \"turn {state:on|off} the {place} light[s]\", \"action\": { \"light\": \"{place}\", \"to\": \"{state}\" } }]

Examples:
  firelight listen talk.wav
  firelight listen orders.wav --commands house.json --json
  arecord -t raw -f S16_LE -r 16000 | firelight listen - --raw 16000";

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Start {
        at: f64,
    },
    Partial {
        text: &'a str,
        start: f64,
        end: f64,
        work_ms: f64,
    },
    Final {
        text: &'a str,
        start: f64,
        end: f64,
        work_ms: f64,
        behind_ms: f64,
    },
    Action {
        action: &'a serde_json::Value,
    },
}

/// What is shown, and whether showing still works.
struct Show {
    json: bool,
    terminal: bool,
    commands: Option<Arc<Commands>>,
    /// When the first sample was given, if time is kept.
    start: Option<Instant>,
    result: Result<()>,
}

impl Show {
    fn event(&mut self, event: &Event) {
        if self.result.is_ok() {
            self.result = self.told(event);
        }
    }

    fn told(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Start(at) if self.json => json::print(&Line::Start { at: *at }),
            Event::Start(_) => Ok(()),
            Event::Partial(said) if self.json => json::print(&Line::Partial {
                text: &said.text,
                start: said.start,
                end: said.end,
                work_ms: said.work.as_secs_f64() * 1e3,
            }),
            // Overwritten by what comes next, where that can be done.
            Event::Partial(said) if self.terminal => {
                ui::to_stdout(&format!("\r\x1b[K{}", format::harmless(&said.text)))
            }
            Event::Partial(_) => Ok(()),
            Event::Final(said) if said.text.is_empty() => Ok(()),
            Event::Final(said) => {
                if self.json {
                    // From the last word to now, the pause included.
                    let now = self.start.map(|s| s.elapsed().as_secs_f64());
                    json::print(&Line::Final {
                        text: &said.text,
                        start: said.start,
                        end: said.end,
                        work_ms: said.work.as_secs_f64() * 1e3,
                        behind_ms: now.map_or(0.0, |now| (now - said.end).max(0.0) * 1e3),
                    })?;
                } else if self.commands.is_none() {
                    let clear = if self.terminal { "\r\x1b[K" } else { "" };
                    ui::to_stdout(&format!("{clear}{}\n", format::harmless(&said.text)))?;
                }
                let action = self.commands.as_ref().and_then(|c| c.action(&said.text));
                match action {
                    Some(action) if self.json => json::print(&Line::Action { action: &action }),
                    Some(action) => ui::to_stdout(&format!("{action}\n")),
                    None => Ok(()),
                }
            }
        }
    }
}

pub(crate) fn run(args: &ListenArgs) -> Result<u8> {
    interrupt::install()?;
    let commands = match &args.commands {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Some(Arc::new(Commands::parse(&text)?))
        }
        None => None,
    };
    // Work for a text that is not told would delay what is.
    let partial = args
        .partial
        .unwrap_or(if commands.is_some() { 0 } else { 1000 });
    if commands.is_some() && (1..200).contains(&partial) {
        return Err(Usage("--partial below 200 ms leaves no time for commands".into()).into());
    }
    let seconds = |ms: u32| f64::from(ms) / 1e3;
    let sooner = match (&commands, args.sentence_pause) {
        (Some(known), _) => Some(Sooner::commands(seconds(args.command_pause), known.clone())),
        (None, Some(pause)) => Some(Sooner::sentences(seconds(pause))),
        (None, None) => None,
    };
    let mut ui = Ui::of(args.json);
    let ready = load::speech(Some(&args.model), &args.engine, &mut ui)?;
    let mut options = Options {
        pause: seconds(args.pause),
        sooner,
        partial: seconds(partial),
        ..Options::default()
    };
    options.transcribe.detector = load::detector(args.vad_model.as_deref(), &mut ui)?;
    options.transcribe.language = args.language.clone();
    options.transcribe.hotwords = args.hotwords.clone();
    if args.whole_window {
        options.after = None;
    }
    let listener = Listener::new(&ready.engine, ready.model, options)?;
    let cancel = interrupt::listen();
    let mut hearing = Hearing {
        listener,
        cancel: &cancel,
        given: 0,
        wait: !args.no_wait,
        show: Show {
            json: args.json,
            terminal: std::io::IsTerminal::is_terminal(&std::io::stdout()),
            commands,
            start: None,
            result: Ok(()),
        },
    };
    let ended = hear(args, &mut hearing, &ui);
    let show = hearing.show;
    if show.terminal {
        ui::to_stdout("\n")?;
    }
    show.result?;
    match ended {
        Err(e) if cancel.is_cancelled() => {
            drop(e);
            Ok(INTERRUPTED)
        }
        other => other.map(|()| OK),
    }
}

/// What hears, and how far it is.
struct Hearing<'a> {
    listener: Listener,
    cancel: &'a CancelToken,
    /// Samples given.
    given: usize,
    /// A recording takes the time that it lasts.
    wait: bool,
    show: Show,
}

impl Hearing<'_> {
    fn give(&mut self, samples: &[f32]) -> Result<()> {
        let Hearing { listener, show, .. } = self;
        self.given += samples.len();
        let mut tell = |e| show.event(&e);
        Ok(pollster::block_on(listener.push(
            samples,
            self.cancel,
            &mut tell,
        ))?)
    }

    /// Gives samples of a recording, in pieces of 20 ms, each when its time has come.
    fn play(&mut self, samples: &[f32]) -> Result<()> {
        let rate = self.listener.rate() as usize;
        for piece in samples.chunks(rate / 50) {
            if self.wait {
                let start = *self.show.start.get_or_insert_with(Instant::now);
                // A piece is there when its last sample is.
                let due = (self.given + piece.len()) as f64 / rate as f64;
                let due = Duration::from_secs_f64(due);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            self.give(piece)?;
        }
        Ok(())
    }

    /// Gives what comes as it comes, until there is no more or Ctrl-C.
    fn follow(&mut self, live: &Live) -> Result<()> {
        let mut resampler = Resampler::new(live.rate, self.listener.rate())?;
        let mut samples = Vec::new();
        while !self.cancel.is_cancelled() {
            let block = match live.blocks.recv_timeout(Duration::from_millis(100)) {
                Ok(block) => block.context("the sound broke off")?,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let length = block.len() as f64 / f64::from(live.rate);
            let now = Instant::now();
            // The first sample was there before the last of its block.
            let begun = now.checked_sub(Duration::from_secs_f64(length));
            self.show.start.get_or_insert(begun.unwrap_or(now));
            resampler.push(&block, &mut samples)?;
            self.give(&samples)?;
            samples.clear();
        }
        resampler.finish(&mut samples);
        self.give(&samples)
    }
}

fn hear(args: &ListenArgs, hearing: &mut Hearing<'_>, ui: &Ui) -> Result<()> {
    let live = match (&args.file, args.raw) {
        (Some(file), Some(rate)) if file.as_os_str() == "-" => Some(live::input(rate)),
        (_, Some(_)) => return Err(Usage("--raw reads standard input: -".into()).into()),
        #[cfg(feature = "microphone")]
        (None, None) => Some(live::microphone(args.input.as_deref())?),
        _ => None,
    };
    match (live, &args.file) {
        (Some(live), _) => {
            ui.note("listening; Ctrl-C ends it");
            let ended = hearing.follow(&live);
            let lost = live.lost.load(Ordering::Relaxed);
            if lost > 0 {
                let lost = f64::from(lost as u32) / f64::from(live.rate);
                ui.note(&format!("{lost:.1} s were lost: the device is too slow"));
            }
            ended?;
        }
        (None, Some(file)) => {
            let bytes = sound::bytes(file)?;
            let rate = hearing.listener.rate();
            sound::stream(&bytes, rate, &args.sound, |samples, _| {
                hearing.play(samples)
            })
            .with_context(|| format!("cannot listen to {}", file.display()))?;
        }
        (None, None) => return Ok(()),
    }
    let Hearing { listener, show, .. } = hearing;
    let mut tell = |e| show.event(&e);
    Ok(pollster::block_on(
        listener.finish(hearing.cancel, &mut tell),
    )?)
}
