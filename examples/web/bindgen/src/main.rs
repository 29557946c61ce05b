//! `firelight-web-bindgen ENGINE.wasm FOLDER`: writes `firelight.js` and `firelight_bg.wasm` for module workers.
//!
//! The library of wasm-bindgen's own program, so that it is always the version the engine was compiled with, and nothing is installed.
//! What nobody calls is taken out: crates that also have an interface for C export it from every wasm module, with all it needs.

use anyhow::{Context, Result, bail};
use std::path::Path;
use wasm_bindgen_cli_support::Bindgen;

/// The C interface of `llguidance`.
const NOT_OURS: &[&str] = &["llg_"];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, folder] = args.as_slice() else {
        bail!("usage: firelight-web-bindgen ENGINE.wasm FOLDER");
    };
    let mut output = Bindgen::new()
        .input_path(input)
        .out_name("firelight")
        .web(true)?
        .typescript(false)
        .omit_default_module_path(false)
        .remove_name_section(std::env::var_os("KEEP_NAMES").is_none())
        .remove_producers_section(true)
        .generate_output()
        .with_context(|| format!("{input} as a module for the web"))?;
    let module = output.wasm_mut();
    let idle: Vec<_> = module
        .exports
        .iter()
        .filter(|e| NOT_OURS.iter().any(|p| e.name.starts_with(p)))
        .map(walrus::Export::id)
        .collect();
    for id in idle {
        module.exports.delete(id);
    }
    walrus::passes::gc::run(module);
    output.emit(Path::new(folder))
}
