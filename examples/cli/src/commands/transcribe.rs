//! `firelight transcribe`: recordings to text and subtitles.

use super::sound::{self, SoundArgs};
use crate::args::EngineArgs;
use crate::progress::{self, Progress};
use crate::ui::{self, Ui};
use crate::{OK, Usage, format, interrupt, load};
use anyhow::{Context, Result};
use clap::ValueEnum;
use firelight_runtime::pipelines::transcribe::{
    self, Event, Format, Options, Padding, Task, Transcriber,
};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TranscribeArgs {
    /// Recordings: WAV, FLAC, MP3, Ogg Vorbis, AAC/M4A, Ogg or WebM Opus; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A name of `firelight models list`, a model's folder, or `hf:OWNER/REPO[@REVISION]`
    /// [default: the first model of the list that transcribes]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// What is written down
    #[arg(long, value_enum, default_value_t)]
    task: TaskKind,
    /// Code of the language: en, de, fr, … [default: the model decides]
    #[arg(short, long, value_name = "CODE")]
    language: Option<String>,
    /// Times of what
    #[arg(long, value_enum, default_value_t)]
    timestamps: Times,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: FormatKind,
    /// Write FILE.txt (.srt, …) into this folder instead of to standard output; what is there is not made again
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make them again
    #[arg(long, requires = "out")]
    force: bool,
    /// Leave out what is no speech before the model hears it
    #[arg(long)]
    vad: bool,
    /// Tell speech by Silero's model instead of by loudness: `silero-vad`, or its file; implies --vad
    #[arg(long, value_name = "MODEL")]
    vad_model: Option<String>,
    /// Text that comes before the first words: names, spelling, style
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Words to be expected everywhere
    #[arg(long, value_name = "TEXT")]
    hotwords: Option<String>,
    /// Do not show the model what was said before: no error spreads, names are spelled in different ways
    #[arg(long)]
    no_context: bool,
    /// Cut long files at pauses and decode so many windows of 30 s together: faster where the decoder waits for memory; nothing said
    /// before is shown to the model, and a prompt comes before each window
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    batch: Option<u8>,
    /// Temperature; above 0 tokens are drawn. [default: 0, and up to 1 where the text repeats itself or is improbable]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Texts drawn at a temperature above 0, of which the likeliest is taken
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=64))]
    best_of: u8,
    /// What comes after the end of the sound, up to the model's 30 s
    #[arg(long, value_enum, default_value_t)]
    padding: PaddingKind,
    #[command(flatten)]
    sound: SoundArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

const EXAMPLES: &str = "\
Files of any length; several files can be interrupted and taken up again with --out. Nothing is sent anywhere.

Examples:
  firelight transcribe talk.mp3
  firelight transcribe *.m4a --format srt --out subtitles
  firelight transcribe interview.webm --timestamps word --format json --vad
  firelight transcribe lecture.mp3 --batch 8
  firelight transcribe vortrag.ogg --language de --task translate
  ffmpeg -i film.mkv -f wav - | firelight transcribe - --format vtt";

#[derive(Clone, Copy, Default, ValueEnum)]
enum TaskKind {
    /// What is said
    #[default]
    Transcribe,
    /// It in English
    Translate,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Times {
    /// Of segments
    #[default]
    Segment,
    /// Of words, too
    Word,
    /// Of nothing: each window is a segment
    None,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum PaddingKind {
    /// Silence, as the models were trained
    #[default]
    Silence,
    /// Zero features, as OpenAI's program
    Zeros,
}

/// See [`Format`].
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatKind {
    /// A line for each segment
    #[default]
    Txt,
    /// Subtitles for players
    Srt,
    /// Subtitles for the web
    Vtt,
    /// Everything there is
    Json,
    /// Milliseconds and text, by tabs
    Tsv,
}

impl FormatKind {
    fn format(self) -> Format {
        match self {
            FormatKind::Txt => Format::Txt,
            FormatKind::Srt => Format::Srt,
            FormatKind::Vtt => Format::Vtt,
            FormatKind::Json => Format::Json,
            FormatKind::Tsv => Format::Tsv,
        }
    }
}

impl TranscribeArgs {
    fn options(&self) -> Options {
        let mut options = Options {
            task: match self.task {
                TaskKind::Transcribe => Task::Transcribe,
                TaskKind::Translate => Task::Translate,
            },
            language: self.language.clone(),
            timestamps: self.timestamps != Times::None,
            word_timestamps: self.timestamps == Times::Word,
            condition: !self.no_context,
            batch: self.batch.map_or(0, usize::from),
            best_of: usize::from(self.best_of),
            prompt: self.prompt.clone(),
            hotwords: self.hotwords.clone(),
            vad: self.vad || self.vad_model.is_some(),
            padding: match self.padding {
                PaddingKind::Silence => Padding::Silence,
                PaddingKind::Zeros => Padding::Zeros,
            },
            ..Options::default()
        };
        if let Some(t) = self.temperature {
            options.temperatures = vec![t];
        }
        options
    }

    /// Where a file's transcript goes; `None`: to standard output.
    fn target(&self, file: &Path) -> Option<PathBuf> {
        let name = file
            .file_name()
            .map_or_else(|| "transcript".into(), |n| n.to_owned());
        let mut name = if name == "-" { "stdin".into() } else { name };
        name.push(".");
        name.push(self.format.format().ending());
        self.out.as_ref().map(|dir| dir.join(name))
    }
}

pub(crate) fn run(args: &TranscribeArgs) -> Result<u8> {
    interrupt::install()?;
    if args.temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
        return Err(Usage("--temperature is 0 to 2".into()).into());
    }
    if args.files.len() > 1 && args.out.is_none() && args.format != FormatKind::Txt {
        return Err(Usage("several files in this format need --out".into()).into());
    }
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut ui = Ui::of(args.format == FormatKind::Json && args.out.is_none());
    // What is to be done is known before a model is fetched for it.
    let mut todo = Vec::new();
    for file in &args.files {
        match args.target(file) {
            Some(target) if target.exists() && !args.force => {
                ui.note(&format!("{} is there already", target.display()));
            }
            target => todo.push((file, target)),
        }
    }
    if todo.is_empty() {
        return Ok(OK);
    }
    let ready = load::speech(args.model.as_deref(), &args.engine, &mut ui)?;
    let mut options = args.options();
    options.detector = load::detector(args.vad_model.as_deref(), &mut ui)?;
    let mut transcriber = Transcriber::new(&ready.engine, ready.model, options)?;
    for (file, target) in todo {
        one(args, file, target.as_deref(), &mut transcriber, &mut ui)
            .with_context(|| format!("cannot transcribe {}", file.display()))?;
    }
    Ok(OK)
}

fn one(
    args: &TranscribeArgs,
    file: &Path,
    target: Option<&Path>,
    transcriber: &mut Transcriber,
    ui: &mut Ui,
) -> Result<()> {
    let bytes = sound::bytes(file)?;
    let cancel = interrupt::listen();
    let start = Instant::now();
    let name = file.display().to_string();
    let mut total = None;
    // Text for people appears as it is made.
    let live = target.is_none() && args.format == FormatKind::Txt;
    let mut shown = Ok(());
    let mut notes = Vec::new();
    transcriber.reset()?;
    let mut on_event = |event: Event, total: Option<f64>, ui: &mut Ui| match event {
        Event::Segment(s) if live && shown.is_ok() => {
            shown = ui::to_stdout(&format!("{}\n", format::harmless(&s.text)));
        }
        Event::Progress(done) => show(ui, &name, done, total, start),
        Event::Moved(device) => notes.push(format!("the device failed; going on with {device}")),
        _ => {}
    };
    sound::stream(
        &bytes,
        transcriber.rate(),
        &args.sound,
        |samples, length| {
            total = length;
            let mut tell = |e| on_event(e, length, ui);
            Ok(pollster::block_on(
                transcriber.push(samples, &cancel, &mut tell),
            )?)
        },
    )?;
    let mut tell = |e| on_event(e, total, ui);
    let transcript = pollster::block_on(transcriber.finish(&cancel, &mut tell))?;
    progress::leave_line();
    shown?;
    for note in notes {
        ui.note(&note);
    }
    let took = start.elapsed().as_secs_f64();
    let language = transcript.language.as_deref().unwrap_or("nothing said");
    ui.note(&format!(
        "{name}: {} of sound in {}, {:.1}× real time, {language}",
        format::clock(transcript.duration),
        format::seconds(took),
        transcript.duration / took.max(1e-9)
    ));
    let text = transcribe::write(&transcript, args.format.format())?;
    match target {
        // A file is there when it is whole.
        Some(target) => {
            let half = target.with_extension("part");
            std::fs::write(&half, text)
                .and_then(|()| std::fs::rename(&half, target))
                .with_context(|| format!("cannot write {}", target.display()))
        }
        None if live => Ok(()),
        None => ui::to_stdout(&text),
    }
}

/// How far a file is, and how long it will take.
fn show(ui: &mut Ui, name: &str, done: f64, total: Option<f64>, start: Instant) {
    let took = start.elapsed().as_secs_f64();
    let of = total.map_or_else(String::new, |t| format!(" of {}", format::clock(t)));
    let left = total
        .filter(|t| *t > done && done > 0.0)
        .map(|t| (t - done) * took / done);
    let file = format!(
        "{name} · {}{of} · {:.1}×",
        format::clock(done),
        done / took.max(1e-9)
    );
    ui.progress(&Progress {
        phase: "transcribing",
        file: &file,
        done: 0,
        total: None,
        speed_bps: None,
        eta_s: left,
    });
}
