//! `firelight chat`: one answer, or a conversation.
//!
//! [`prompt`] is where the question comes from, [`answer`] where the answer goes, [`repl`] the conversation, [`lora`] adapters, [`kept`] what is
//! left for the next run.

mod answer;
mod kept;
mod law;
mod lora;
mod prompt;
mod repl;

use super::sound;
use crate::args::{EngineArgs, ModelArgs, SamplingArgs};
use crate::load::{self, Ready};
use crate::ui::{Show, Ui};
use crate::{INTERRUPTED, OK, Usage, interrupt, pictures, spark};
use anyhow::Result;
use firelight_runtime::{Draft, Finish, GenerateOptions, Medium, Message, Session};
use law::LawArgs;
use prompt::Prompt;
use std::path::PathBuf;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    /// The question. Text piped in is put behind it; without a question it is the question (also written `-`).
    /// With neither, a conversation begins
    prompt: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// A picture to ask about (PNG, JPEG, WebP, GIF, BMP); may be given several times. Without --model the model that is in the
    /// program answers, which knows drawn shapes and short words only
    #[arg(short, long, value_name = "FILE", conflicts_with = "raw")]
    image: Vec<PathBuf>,
    /// A sound of at most 30 s to ask about, for a model that hears (Gemma 4); may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    audio: Vec<PathBuf>,
    /// What the model should know or be, before the conversation
    #[arg(short, long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// No chat template: the model continues the text as it is (for base models)
    #[arg(long)]
    raw: bool,
    /// Tokens of an answer at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1024)]
    max_tokens: usize,
    /// Tokens of a conversation at most [default: the model's context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    ctx: Option<u32>,
    /// Text that ends an answer and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on where the model would end its answer
    #[arg(long)]
    ignore_eos: bool,
    /// Let the model think before it answers, if it can
    #[arg(long, conflicts_with = "raw")]
    think: bool,
    /// A LoRA adapter's folder (adapter_config.json, adapter_model.safetensors) and how much of it; may be given several times
    #[arg(long, value_name = "DIR[=SCALE]")]
    lora: Vec<String>,
    /// Merge the adapters into the weights instead of computing them beside: a little faster. Quantised weights are rounded anew
    #[arg(long, requires = "lora")]
    merge_lora: bool,
    /// The tower of a GGUF model that sees, if it is not the mmproj-….gguf beside it
    #[arg(long, value_name = "FILE", requires = "model")]
    mmproj: Option<PathBuf>,
    /// Guess tokens ahead and check several in one step; the answer stays the same. `lookup`: from what was said before, for answers
    /// that repeat their prompt. Else a smaller model of the same family: a name, path or address as for --model
    #[arg(long, value_name = "lookup|MODEL")]
    draft: Option<String>,
    /// Keep what the model has read of the conversation in this file, and go on from there in the next run: a long text is not read
    /// again. Whoever can read the file can read the conversation
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "audio", "lora"])]
    prompt_cache: Option<PathBuf>,
    #[command(flatten)]
    law: LawArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object per line and event on standard output; the last is {"type":"done",…} or {"type":"error",…}
    #[arg(long)]
    pub(crate) json: bool,
    /// Nothing but the answer, and errors
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

const EXAMPLES: &str = "\
The answer goes to standard output as it comes, everything else to standard error.
Ctrl-C ends the answer; twice within two seconds ends the program.

Examples:
  firelight chat \"Why is the sky blue?\"
  firelight chat \"Sum this up:\" < notes.txt
  firelight chat                                    a conversation; /help says what it knows
  firelight chat --model ./model.gguf --temperature 0 \"Name three rivers.\"
  firelight chat --model gemma-3-270m --raw -n 40 \"Once upon a time\"
  firelight chat --model ./llama-1b --lora ./clinic --lora ./style=0.5 \"Sum up the findings.\"
  firelight chat --choices positive,negative \"The mood of: What a day!\"
  firelight chat --schema person.json \"Who wrote Faust?\" | jq .name
  firelight chat --image shapes.png \"What colour is the circle?\"
  firelight chat --draft lookup \"Correct the spelling:\" < letter.txt
  firelight chat --prompt-cache law.cache \"Who may appeal?\" < law.txt    again with another question: the text is not read again
  firelight chat --device gpu --json \"Hello\"";

pub(crate) fn run(args: ChatArgs) -> Result<u8> {
    let show = match (args.json, args.quiet) {
        (true, _) => Show::Events,
        (_, true) => Show::Nothing,
        _ => Show::Notes,
    };
    let mut ui = Ui::new(show);
    check(&args)?;
    match Prompt::find(args.prompt.as_deref()) {
        Some(prompt) => {
            interrupt::install()?;
            one_shot(&args, prompt, &mut ui)
        }
        None if args.json => {
            Err(Usage("--json needs a prompt, or text piped in".to_owned()).into())
        }
        None if !args.audio.is_empty() => Err(Usage("--audio needs a question".to_owned()).into()),
        None => repl::run(&args, &mut ui),
    }
}

/// What can be known to be wrong before anything is loaded.
fn check(args: &ChatArgs) -> Result<()> {
    args.law.grammar()?;
    args.law.tools()?;
    if args.stop.iter().any(String::is_empty) {
        return Err(Usage("an empty --stop would end every answer at once".to_owned()).into());
    }
    args.sampling
        .settings()
        .check()
        .map_err(|e| Usage(e.to_string()).into())
}

/// How answers are generated.
fn options(args: &ChatArgs) -> Result<GenerateOptions> {
    Ok(GenerateOptions {
        sampling: args.sampling.settings(),
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        stop_ids: Vec::new(),
        ignore_eos: args.ignore_eos,
        context: args.ctx.map(|n| n as usize),
        grammar: args.law.grammar()?,
        tools: args.law.tools()?,
        thinking: args.think,
        ..GenerateOptions::default()
    })
}

/// The model, a session with it, and how answers are generated.
fn start(args: &ChatArgs, ui: &mut Ui) -> Result<(Ready, Session, GenerateOptions)> {
    let adapters = lora::open(&args.lora)?;
    let merged = if args.merge_lora { &adapters[..] } else { &[] };
    let seeing = args.model.model.is_none() && !args.image.is_empty();
    let model = match seeing {
        true => Some(spark::NAME),
        false => args.model.model.as_deref(),
    };
    if seeing {
        ui.note(spark::NOTE);
    }
    let mmproj = args.mmproj.as_deref();
    let ready = load::ready_with(model, &args.engine, &load::Beside { merged, mmproj }, ui)?;
    let mut options = options(args)?;
    if args.merge_lora {
        ui.note(&lora::merged(&ready.model.checkpoint.merged()));
    } else {
        for used in &adapters {
            used.adapter.fit(&ready.model)?;
        }
        options.adapters = adapters;
    }
    options.draft = match args.draft.as_deref() {
        None => None,
        Some("lookup") => Some(Draft::Lookup),
        Some(small) => Some(Draft::Model(load::another(
            small,
            &ready.engine,
            &args.engine,
            ui,
        )?)),
    };
    let no_template = ready.model.text.template.is_none() && !args.raw;
    anyhow::ensure!(
        !no_template,
        "{} is a base model without a chat template: it continues text and does not answer questions; \
         run it with --raw, or choose a chat model (firelight models list)",
        ready.local.name
    );
    let mut session = Session::new(&ready.engine, &ready.model)?;
    kept::open(args, &mut session, ui)?;
    Ok((ready, session, options))
}

fn one_shot(args: &ChatArgs, prompt: Prompt, ui: &mut Ui) -> Result<u8> {
    // A question behind which text may come waits for it while the model loads; without one the text is needed first.
    let text = if prompt.is_asked() {
        None
    } else {
        Some(prompt.text(ui)?)
    };
    // A picture that cannot be used is told before a model is loaded.
    let media = args.image.iter().map(|path| pictures::open(path));
    let mut media = media.collect::<Result<Vec<_>>>()?;
    for path in &args.audio {
        let samples = sound::read(path, 16_000, &sound::SoundArgs::default())?;
        media.push(Medium::Audio(samples.into()));
    }
    let (ready, mut session, mut options) = start(args, ui)?;
    options.media = media;
    let text = text.map_or_else(|| prompt.text(ui), Ok)?;
    let ids = if args.raw {
        session.model().text.encode_text(&text)?
    } else {
        let system = args.system.iter().map(|s| Message::system(s.as_str()));
        let question = pictures::question_with(text, args.image.len(), args.audio.len());
        let messages: Vec<Message> = system.chain([question]).collect();
        answer::prompt(&mut session, &messages, &options, ui)?
    };
    let answer = answer::stream(&mut session, &ids, &options, ui)?;
    answer::close(&answer, &options, &ready.engine.report(), ui)?;
    kept::close(args, &mut session, ui)?;
    Ok(if answer.finish == Finish::Cancelled {
        INTERRUPTED
    } else {
        OK
    })
}
