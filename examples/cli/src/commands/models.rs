//! `firelight models`: what there is, what is here, and keeping it in order.

use crate::json::{self, Event};
use crate::ui::{self, Show, Ui};
use crate::{FAILED, OK, format, interrupt, load, progress};
use anyhow::Result;
use firelight_runtime::source::{CatalogueStatus, FileState};
use serde_json::json;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
MODEL is a name of the list, or hf:OWNER/REPO[/FILE][@REVISION].

Examples:
  firelight models list
  firelight models fetch gemma-3-270m
  firelight models fetch hf:OWNER/REPO/model-Q4_K_M.gguf
  firelight models verify smollm2-135m-instruct";

#[derive(clap::Subcommand)]
enum Action {
    /// All models known by name, and which of them are here
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model; an interrupted download goes on where it was
    Fetch {
        /// Which model
        model: String,
        /// JSON lines: progress, then {"type":"fetched",…}
        #[arg(long)]
        json: bool,
    },
    /// Print the file or folder of a model that is here
    Path {
        /// Which model
        model: String,
    },
    /// Compute the sha256 of a model's files; what is damaged is discarded, so that it is fetched again
    Verify {
        /// Which model [default: all that are here]
        model: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove a model's files, and what an interrupted download left
    Rm {
        /// Which models
        #[arg(required = true)]
        model: Vec<String>,
    },
}

impl ModelsArgs {
    pub(crate) fn json(&self) -> bool {
        match self.action {
            Action::List { json } | Action::Fetch { json, .. } | Action::Verify { json, .. } => {
                json
            }
            Action::Path { .. } | Action::Rm { .. } => false,
        }
    }
}

pub(crate) fn run(args: ModelsArgs) -> Result<u8> {
    interrupt::install()?;
    match args.action {
        Action::List { json } => list(json),
        Action::Fetch { model, json } => fetch(&model, json),
        Action::Path { model } => {
            ui::to_stdout(&format!("{}\n", load::resolver()?.path(&model)?.display()))?;
            Ok(OK)
        }
        Action::Verify { model, json } => verify(model.as_deref(), json),
        Action::Rm { model } => remove(&model),
    }
}

/// A catalogue model's state in a word or two.
pub(crate) fn state(s: &CatalogueStatus) -> String {
    match (s.cached, s.partial_bytes + s.bytes) {
        (true, _) => "here".to_owned(),
        (false, 0) => "not fetched".to_owned(),
        (false, n) => format!("{} of it here", format::bytes(n)),
    }
}

/// A catalogue model's state in JSON.
pub(crate) fn state_json(s: &CatalogueStatus) -> serde_json::Value {
    json!({
        "name": s.entry.name, "aliases": s.entry.aliases, "task": s.entry.task, "family": s.entry.family,
        "licence": s.entry.licence, "licence_url": s.entry.licence_url, "context": s.entry.context,
        "bytes": s.entry.size(), "cached": s.cached, "cached_bytes": s.bytes, "partial_bytes": s.partial_bytes,
        "path": s.path, "notes": s.entry.notes,
    })
}

fn list(json: bool) -> Result<u8> {
    let resolver = load::resolver()?;
    let models = resolver.list();
    if json {
        let list: Vec<_> = models.iter().map(state_json).collect();
        json::print(&json!({ "cache": resolver.options().cache_dir, "models": list }))?;
        return Ok(OK);
    }
    let mut rows = vec![
        ["name", "task", "size", "", "licence"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for s in &models {
        let e = &s.entry;
        rows.push(vec![
            e.name.clone(),
            e.task.clone(),
            format::bytes(e.size()),
            state(s),
            e.licence.clone(),
        ]);
    }
    let mut text = format::table(&rows);
    for s in models.iter().filter(|s| !s.entry.notes.is_empty()) {
        text.push_str(&format!("\n{}: {}", s.entry.name, s.entry.notes));
    }
    text.push_str(&format!(
        "\n\nModels live in {}\n",
        resolver.options().cache_dir.display()
    ));
    ui::to_stdout(&text)?;
    Ok(OK)
}

fn fetch(model: &str, json: bool) -> Result<u8> {
    let resolver = load::resolver()?;
    let mut ui = Ui::new(if json { Show::Events } else { Show::Notes });
    let local = load::files(&resolver, model, &mut ui)?;
    let bytes = local
        .files
        .iter()
        .filter_map(|f| std::fs::metadata(f).ok())
        .map(|m| m.len())
        .sum();
    if json {
        ui.event(&Event::Fetched {
            model: &local.name,
            path: local.root.display().to_string(),
            bytes,
            origin: &local.origin,
            licence: local.licence.as_deref(),
        })?;
    } else {
        ui::to_stdout(&format!(
            "{} ({})\n",
            local.root.display(),
            format::bytes(bytes)
        ))?;
    }
    Ok(OK)
}

fn verify(model: Option<&str>, json: bool) -> Result<u8> {
    let resolver = load::resolver()?;
    let names: Vec<String> = match model {
        Some(name) => vec![name.to_owned()],
        None => resolver
            .list()
            .into_iter()
            .filter(|s| s.cached)
            .map(|s| s.entry.name)
            .collect(),
    };
    let mut ui = Ui::of(json);
    let (mut sound, mut found) = (true, Vec::new());
    for name in &names {
        let cancel = interrupt::listen();
        let checks = resolver.verify(name, &mut |e| ui.fetching(&e), &cancel)?;
        progress::leave_line();
        for check in checks {
            let (word, detail) = match check.state {
                FileState::Sound => ("ok", String::new()),
                FileState::NoHash => (
                    "unknown",
                    "nothing says what its sha256 should be".to_owned(),
                ),
                FileState::Missing => (
                    "missing",
                    format!("fetch it with: firelight models fetch {name}"),
                ),
                FileState::Corrupt { reason } => (
                    "corrupt",
                    format!("{reason}; discarded, fetch it again: firelight models fetch {name}"),
                ),
                _ => ("unknown", String::new()),
            };
            sound &= !matches!(word, "missing" | "corrupt");
            if json {
                found.push(
                    json!({ "model": name, "path": check.path, "state": word, "detail": detail }),
                );
            } else {
                let detail = if detail.is_empty() {
                    detail
                } else {
                    format!("  {detail}")
                };
                ui::to_stdout(&format!("{word:<8} {}{detail}\n", check.path.display()))?;
            }
        }
    }
    if json {
        json::print(&json!({ "ok": sound, "files": found }))?;
    } else if names.is_empty() {
        ui.note("no model of the list is here; see: firelight models list");
    }
    Ok(if sound { OK } else { FAILED })
}

fn remove(names: &[String]) -> Result<u8> {
    let resolver = load::resolver()?;
    for name in names {
        let freed = resolver.remove(name)?;
        let what = if freed == 0 {
            "was not here".to_owned()
        } else {
            format!("removed, {} freed", format::bytes(freed))
        };
        ui::to_stdout(&format!("{name}: {what}\n"))?;
    }
    Ok(OK)
}
