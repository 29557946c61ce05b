//! From a model's name to a model on a device.

use crate::args::EngineArgs;
use crate::interrupt;
use crate::json::{self, Event};
use crate::progress::{self, Progress};
use crate::spark;
use crate::ui::Ui;
use anyhow::{Context, Result};
use firelight_audio::SileroVad;
use firelight_runtime::checkpoint::Checkpoint;
use firelight_runtime::source::{Error as SourceError, LocalModel, Options, Resolver};
use firelight_runtime::{
    AdapterUse, DeviceChoice, Engine, LoadedEncoder, LoadedModel, LoadedSpeech, Report,
};
use firelight_tensor::Weights;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A model on its device.
pub(crate) struct Ready {
    pub(crate) engine: Engine,
    pub(crate) model: LoadedModel,
    pub(crate) local: LocalModel,
    pub(crate) load_time: Duration,
}

/// The resolver with the user's environment.
pub(crate) fn resolver() -> Result<Resolver> {
    let mut options = Options::from_env()?;
    spark::embed(&mut options.catalogue)?;
    Ok(Resolver::new(options))
}

/// The name of the model to use if none was given.
pub(crate) fn default_model(resolver: &Resolver) -> Result<String> {
    let entry = resolver.catalogue().default_for("chat");
    Ok(entry
        .context("the catalogue has no chat model; name one with --model")?
        .name
        .clone())
}

/// The device that the flags ask for.
pub(crate) fn engine(args: &EngineArgs) -> Result<Engine> {
    args.check()?;
    pollster::block_on(Engine::new(args.options())).context("no device")
}

/// A model's files, fetched if they are not here. Ctrl-C ends a download; the next one resumes.
pub(crate) fn files(resolver: &Resolver, name: &str, ui: &mut Ui) -> Result<LocalModel> {
    let model = resolver.parse(name)?;
    let here = resolver.path(name).is_ok();
    let cancel = interrupt::listen();
    let found = resolver.resolve(&model, &mut |e| ui.fetching(&e), &cancel);
    progress::leave_line();
    let local = match found {
        Ok(local) => local,
        // A package client gets the same Ctrl-C and may be faster to fail.
        Err(_) if cancel.is_cancelled() => return Err(SourceError::Cancelled.into()),
        Err(e) => {
            return Err(anyhow::Error::from(e).context(format!("cannot get the model {model}")));
        }
    };
    if !here {
        let licence = local
            .licence
            .as_ref()
            .map(|l| format!(" · licence: {l}"))
            .unwrap_or_default();
        let url = local.entry.as_ref().and_then(|e| e.licence_url.as_ref());
        let url = url.map(|u| format!(" ({u})")).unwrap_or_default();
        ui.note(&format!(
            "fetched {} from {}{licence}{url}",
            local.name, local.origin
        ));
    }
    Ok(local)
}

/// The whole way: the name is checked, a device chosen, the files fetched, the weights loaded.
pub(crate) fn ready(model: Option<&str>, args: &EngineArgs, ui: &mut Ui) -> Result<Ready> {
    ready_with(model, args, &Beside::default(), ui)
}

/// What goes with a model's own files.
#[derive(Default)]
pub(crate) struct Beside<'a> {
    /// Adapters merged into the weights.
    pub(crate) merged: &'a [AdapterUse],
    /// The tower of a GGUF file's model, where it is not found beside it.
    pub(crate) mmproj: Option<&'a Path>,
}

/// [`ready`] with more files.
pub(crate) fn ready_with(
    model: Option<&str>,
    args: &EngineArgs,
    beside: &Beside<'_>,
    ui: &mut Ui,
) -> Result<Ready> {
    let resolver = resolver()?;
    let name = match model {
        Some(name) => name.to_owned(),
        None => default_model(&resolver)?,
    };
    let (engine, local, model, load_time) =
        open(&resolver, &name, args, ui, |engine, root, progress| {
            let dtypes = engine.options().dtypes;
            let mut checkpoint = Checkpoint::open(root)?;
            if let Some(file) = beside.mmproj {
                checkpoint = checkpoint.with_projector(file)?;
            }
            let checkpoint = checkpoint
                .with_dtypes(dtypes)?
                .with_adapters(beside.merged.to_vec());
            pollster::block_on(engine.load_checkpoint(Arc::new(checkpoint), progress))
        })?;
    Ok(Ready {
        engine,
        model,
        local,
        load_time,
    })
}

/// An encoder on its device.
pub(crate) struct ReadyEncoder {
    pub(crate) engine: Engine,
    pub(crate) model: LoadedEncoder,
    /// The model's name for people.
    pub(crate) name: String,
}

/// [`ready`] for an encoder; without a name the first model of the catalogue for `task`.
pub(crate) fn encoder(
    model: Option<&str>,
    task: &str,
    args: &EngineArgs,
    ui: &mut Ui,
) -> Result<ReadyEncoder> {
    let resolver = resolver()?;
    let name = match model {
        Some(name) => name.to_owned(),
        None => resolver
            .catalogue()
            .default_for(task)
            .with_context(|| {
                format!("the catalogue has no model to {task}; name one with --model")
            })?
            .name
            .clone(),
    };
    let (engine, local, model, _) = open(&resolver, &name, args, ui, |engine, root, progress| {
        pollster::block_on(engine.load_encoder(root, progress))
    })?;
    Ok(ReadyEncoder {
        engine,
        model,
        name: local.name,
    })
}

/// A speech model on its device.
pub(crate) struct ReadySpeech {
    pub(crate) engine: Engine,
    pub(crate) model: LoadedSpeech,
}

/// [`ready`] for a speech model; without a name the first model of the catalogue that transcribes.
pub(crate) fn speech(model: Option<&str>, args: &EngineArgs, ui: &mut Ui) -> Result<ReadySpeech> {
    let resolver = resolver()?;
    let name = match model {
        Some(name) => name.to_owned(),
        None => resolver
            .catalogue()
            .default_for("transcribe")
            .context("the catalogue has no model to transcribe; name one with --model")?
            .name
            .clone(),
    };
    let (engine, _, model, _) = open(&resolver, &name, args, ui, |engine, root, progress| {
        pollster::block_on(engine.load_speech(root, progress))
    })?;
    Ok(ReadySpeech { engine, model })
}

/// A detector of speech; `None` without a name.
pub(crate) fn detector(model: Option<&str>, ui: &mut Ui) -> Result<Option<SileroVad>> {
    let Some(name) = model else {
        return Ok(None);
    };
    let local = files(&resolver()?, name, ui)?;
    let weights = Weights::open_path(&local.root)?;
    let loaded = SileroVad::new(&weights);
    loaded
        .map(Some)
        .with_context(|| format!("cannot load {}", local.root.display()))
}

/// The name is checked before a device is opened, a device opened before gigabytes are fetched.
fn open<M>(
    resolver: &Resolver,
    name: &str,
    args: &EngineArgs,
    ui: &mut Ui,
    load: impl FnOnce(&Engine, &Path, &mut dyn FnMut(u64, u64)) -> Result<M, firelight_runtime::Error>,
) -> Result<(Engine, LocalModel, M, Duration)> {
    resolver.parse(name)?;
    let engine = engine(args)?;
    let (local, model, load_time) = place(resolver, name, &engine, args, ui, load)?;
    Ok((engine, local, model, load_time))
}

/// One more model on the device of `engine`.
pub(crate) fn another(
    name: &str,
    engine: &Engine,
    args: &EngineArgs,
    ui: &mut Ui,
) -> Result<LoadedModel> {
    let load = |engine: &Engine, root: &Path, progress: &mut dyn FnMut(u64, u64)| {
        pollster::block_on(engine.load(root, progress))
    };
    Ok(place(&resolver()?, name, engine, args, ui, load)?.1)
}

/// Fetches a model where it is not here, and loads it.
fn place<M>(
    resolver: &Resolver,
    name: &str,
    engine: &Engine,
    args: &EngineArgs,
    ui: &mut Ui,
    load: impl FnOnce(&Engine, &Path, &mut dyn FnMut(u64, u64)) -> Result<M, firelight_runtime::Error>,
) -> Result<(LocalModel, M, Duration)> {
    let local = files(resolver, name, ui)?;
    let start = Instant::now();
    let loaded = load(engine, &local.root, &mut |done, total| {
        let phase = "loading";
        let (file, total) = (local.name.as_str(), Some(total));
        ui.progress(&Progress {
            phase,
            file,
            done,
            total,
            speed_bps: None,
            eta_s: None,
        });
    });
    progress::leave_line();
    let model = loaded.with_context(|| format!("cannot load {}", local.root.display()))?;
    let load_time = start.elapsed();
    let report = engine.report();
    ui.note(&format!(
        "{} on {}{}",
        local.name,
        report.device,
        why(&report, args)
    ));
    ui.event(&Event::Load {
        model: name,
        path: local.root.display().to_string(),
        device: &report.device,
        rung: report.rung.name(),
        load_ms: load_time.as_secs_f64() * 1e3,
        attempts: json::attempts(&report),
    })?;
    Ok((local, model, load_time))
}

/// Why nothing better runs, for people; empty where there is nothing to say.
pub(crate) fn why(report: &Report, args: &EngineArgs) -> String {
    let refused: Vec<String> = report
        .attempts
        .iter()
        .filter_map(|a| {
            a.refused
                .as_ref()
                .map(|why| format!("\n  not on {} (rung {}): {why}", a.what, a.rung))
        })
        .collect();
    let auto = args.options().device == DeviceChoice::Auto && args.rung.is_none();
    if refused.is_empty() && auto && !report.rung.is_gpu() {
        return " (no GPU adapter was found)".to_owned();
    }
    refused.concat()
}
