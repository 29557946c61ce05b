//! `firelight tune`: which variants and sizes of kernels are the fastest on this device.

use crate::args::EngineArgs;
use crate::progress;
use crate::ui::{self, Ui};
use crate::{OK, format, interrupt, json, load};
use anyhow::{Context, Result};
use firelight_kernels::KERNELS;
use firelight_kernels::tune::{Pick, TuneOptions, Tuned, tune};
use firelight_runtime::source::Error as SourceError;
use firelight_runtime::{Engine, EngineOptions, tuning};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TuneArgs {
    /// Seconds after which nothing new is measured; what is left keeps its default
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    budget: u64,
    /// Only show what was found, and keep nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Optional: everything runs without it. Each choice first has to answer like the reference on its kernels' cases; of those that do
the fastest is kept in a file of the cache, for this adapter, driver and version, and used from the next start on. `firelight
doctor` names the file; deleting it undoes the tuning. Best on a machine that does nothing else. Ctrl-C ends it and keeps nothing.

Examples:
  firelight tune
  firelight tune --device cpu --threads 4
  firelight tune --budget 60 --json";

pub(crate) fn run(args: &TuneArgs) -> Result<u8> {
    interrupt::install()?;
    args.engine.check()?;
    let mut ui = Ui::of(args.json);
    let folder = load::resolver()?.options().cache_dir.clone();
    // From the defaults, whatever was measured before.
    let options = EngineOptions {
        tuned: false,
        ..args.engine.options()
    };
    let engine = pollster::block_on(Engine::new(options)).context("no device")?;
    let device = engine.device();
    ui.note(&format!(
        "measuring on {}{}",
        device.name(),
        load::why(&engine.report(), &args.engine)
    ));
    let cancel = interrupt::listen();
    let tuned = pollster::block_on(tune(
        &device,
        TuneOptions {
            kernels: KERNELS,
            budget: Duration::from_secs(args.budget),
            go_on: &|| !cancel.is_cancelled(),
            progress: &mut |done, all, what| {
                ui.stepping("measuring", &format!("{} of {all}: {what}", done + 1));
            },
        },
    ));
    progress::leave_line();
    let tuned = tuned?;
    if cancel.is_cancelled() {
        return Err(SourceError::Cancelled.into());
    }
    let file = match args.dry_run {
        true => None,
        false => Some(tuning::save(&folder, &device, &tuned)?),
    };
    if args.json {
        json::print(&as_json(&device.identity(), &tuned, file.as_deref()))?;
    } else {
        ui::to_stdout(&shown(&tuned, file.as_deref()))?;
    }
    Ok(OK)
}

fn as_json(device: &str, tuned: &Tuned, file: Option<&Path>) -> serde_json::Value {
    let pick = |p: &Pick| {
        json!({
            "name": p.tunable.name, "what": p.tunable.what, "dtype": p.dtype.name(),
            "default": p.tunable.default, "value": p.value, "gain": p.gain(),
            "speeds": p.speeds, "wrong": p.wrong,
        })
    };
    json!({
        "device": device,
        "file": file,
        "measured": tuned.picks.iter().map(pick).collect::<Vec<_>>(),
        "left_out": tuned.left.iter().map(|(name, dtype)| json!({ "name": name, "dtype": dtype.name() })).collect::<Vec<_>>(),
    })
}

fn shown(tuned: &Tuned, file: Option<&Path>) -> String {
    let mut table = vec![
        ["number", "type", "default", "chosen", "times as fast", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    for p in &tuned.picks {
        let wrong = p
            .wrong
            .iter()
            .map(|(value, what)| format!("{} ANSWERS WRONG, not used: {what}", number(*value)));
        table.push(vec![
            p.tunable.name.to_owned(),
            p.dtype.name().to_owned(),
            number(p.tunable.default),
            if p.value == p.tunable.default {
                "–".to_owned()
            } else {
                number(p.value)
            },
            if p.value == p.tunable.default {
                "–".to_owned()
            } else {
                format!("{:.2}", p.gain())
            },
            wrong.collect::<Vec<_>>().join("; "),
        ]);
    }
    let mut text = format::table(&table);
    if !tuned.left.is_empty() {
        text.push_str(&format!(
            "left out for lack of time (--budget): {}\n",
            format::count(tuned.left.len(), "number")
        ));
    }
    text.push_str(&match file {
        Some(file) => format!(
            "kept in {}, used from the next start on; deleting it undoes it\n",
            file.display()
        ),
        None => "nothing was kept (--dry-run)\n".to_owned(),
    });
    text
}

fn number(value: u32) -> String {
    match value {
        u32::MAX => "never".to_owned(),
        value => value.to_string(),
    }
}
