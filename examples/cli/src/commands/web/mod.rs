//! `firelight web`: the browser app and local models, served to this machine's browser or written out as static files.
//!
//! | module | what it does |
//! |---|---|
//! | [`site`] | the table of what can be asked for |
//! | [`models`], [`folders`] | models of the cache and of folders, their manifests |
//! | [`serve`] | connections, answers |
//! | [`http`], [`range`], [`path`] | requests, ranges, addresses |
//! | [`headers`] | types, caching, Content-Security-Policy |
//! | [`export`] | the site as files |

mod export;
mod folders;
mod headers;
mod http;
mod models;
mod path;
mod range;
mod serve;
mod site;

use crate::{OK, format, interrupt, json, load, ui};
use anyhow::{Context, Result};
use headers::Connect;
use models::Model;
use serde_json::json;
use site::{Content, Site};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// Where the site is if nothing was asked for.
const PORT: u16 = 8017;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WebArgs {
    /// Port; 0 takes a free one [default: 8017, or a free one if that is taken]
    #[arg(short, long)]
    port: Option<u16>,
    /// Address to listen on. Anything but this machine needs HTTPS in front of it: browsers allow WebGPU and offline use on
    /// https:// and localhost only
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Offer the models here: a .gguf file, a model's folder, or a folder of these [default: all fetched models, and the one in this program]
    #[arg(short, long, value_name = "DIR")]
    dir: Vec<PathBuf>,
    /// A built site to serve instead of the one in this program
    #[arg(long, value_name = "DIR")]
    site: Option<PathBuf>,
    /// Another host that the page may fetch models from, as https://HOST
    #[arg(long, value_name = "URL")]
    model_host: Vec<String>,
    /// Open the page in the browser
    #[arg(long, conflicts_with = "export")]
    open: bool,
    /// Write the site with its models to a folder, to be put on any host of static files, and end
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Say each request on standard error
    #[arg(long)]
    log: bool,
    /// One JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  firelight web --open                      chat in the browser, with the models fetched already
  firelight web --dir ~/models              with the models of a folder
  firelight web --dir ~/models --export www the whole site, for an internal address";

pub(crate) fn run(args: WebArgs) -> Result<u8> {
    let mut site = Site::find(args.site.as_deref(), Connect::to(&args.model_host)?)?;
    let models = add_models(&mut site, &args.dir)?;
    let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
    if let Some(dir) = &args.export {
        let bytes = export::write(&site, dir)?;
        if args.json {
            json::print(
                &json!({ "type": "exported", "path": dir, "bytes": bytes, "models": names }),
            )?;
        } else {
            ui::to_stdout(&format!("{} ({})\n", dir.display(), format::bytes(bytes)))?;
        }
        return Ok(OK);
    }
    let listener = listen(args.host, args.port)?;
    interrupt::install()?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let url = format!("http://{address}/");
    if args.json {
        json::print(
            &json!({ "type": "serving", "url": url, "site": site.origin, "models": names }),
        )?;
    } else {
        ui::to_stdout(&format!("{url}\n"))?;
        let own = || {
            if site.has("models/index.json") {
                "the site's own"
            } else {
                "none"
            }
            .to_owned()
        };
        let offered = if names.is_empty() {
            own()
        } else {
            names.join(", ")
        };
        ui::to_stderr(&format!(
            "site: {} · models: {offered} · Ctrl-C ends it",
            site.origin
        ));
        if offered == "none" {
            ui::to_stderr(
                "get one with: firelight models fetch smollm2, or name a folder with --dir",
            );
        }
        if !args.host.is_loopback() {
            ui::to_stderr(
                "other machines see this page without WebGPU and offline use until it is behind https://",
            );
        }
    }
    if args.open {
        open(&url);
    }
    // Hashing takes a while for large models: not when the first page waits for it.
    std::thread::spawn(move || {
        for model in models {
            // Whoever asks for it is told.
            let _ = model.spec("");
        }
    });
    let local_only = args.host.is_loopback();
    let log = args.log;
    serve::run(
        &listener,
        serve::Server {
            site,
            local_only,
            log,
        },
    )
    .context("cannot serve")?;
    Ok(OK)
}

/// Puts models into the site. Without folders: those of the cache and the program's own, unless the site has its own.
fn add_models(site: &mut Site, dirs: &[PathBuf]) -> Result<Vec<Arc<Model>>> {
    const INDEX: &str = "models/index.json";
    if dirs.is_empty() && site.has(INDEX) {
        return Ok(Vec::new());
    }
    let resolver = load::resolver()?;
    let mut found = Vec::new();
    for dir in dirs {
        found.extend(folders::in_folder(dir, resolver.catalogue())?);
    }
    if dirs.is_empty() {
        found = models::cached(&resolver.list());
    }
    let found: Vec<Arc<Model>> = models::told_apart(found)
        .into_iter()
        .map(Arc::new)
        .collect();
    for model in &found {
        let folder = format!("models/{}", model.name);
        for (name, origin) in &model.files {
            site.add(&format!("{folder}/{name}"), origin.content());
        }
        site.add(
            &format!("{folder}/manifest.json"),
            Content::Manifest(Arc::clone(model)),
        );
    }
    site.add(INDEX, Content::Index(found.clone().into()));
    Ok(found)
}

fn listen(host: IpAddr, port: Option<u16>) -> Result<TcpListener> {
    match TcpListener::bind((host, port.unwrap_or(PORT))) {
        Err(_) if port.is_none() => TcpListener::bind((host, 0)),
        other => other,
    }
    .with_context(|| {
        format!(
            "cannot listen on {host} port {}; another one: --port N",
            port.unwrap_or(PORT)
        )
    })
}

/// Asks the desktop to show an address. What cannot be opened can still be clicked.
fn open(url: &str) {
    let (program, args): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    let mut command = std::process::Command::new(program);
    command
        .args(args)
        .arg(url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    if command.spawn().is_err() {
        ui::to_stderr(&format!("{program} is not here: open {url} yourself"));
    }
}
