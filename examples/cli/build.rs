//! Puts the built site into the program where there is one: `FIRELIGHT_SITE`, else `target/web` of this workspace.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=FIRELIGHT_SITE");
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name: &str| env::var_os(name).map(PathBuf::from);
    let root = var("CARGO_MANIFEST_DIR").unwrap_or_default().join("../..");
    let asked = var("FIRELIGHT_SITE").map(|dir| root.join(dir));
    let dir = asked.clone().unwrap_or_else(|| root.join("target/web"));
    let mut files = Vec::new();
    if dir.join("site.js").is_file() {
        println!("cargo::rerun-if-changed={}", dir.join("site.js").display());
        collect(&dir.canonicalize()?, "", &mut files)?;
    } else if let Some(dir) = asked {
        println!(
            "cargo::error=FIRELIGHT_SITE={}: there is no site (scripts/build_web.sh makes one)",
            dir.display()
        );
    }
    files.sort();
    let mut code = String::from(
        "/// The site's files by their address.\npub(crate) static FILES: &[(&str, &[u8])] = &[\n",
    );
    for (key, path) in files {
        let _ = writeln!(
            code,
            "    ({key:?}, include_bytes!({:?})),",
            path.display().to_string()
        );
    }
    code.push_str("];\n");
    fs::write(var("OUT_DIR").unwrap_or_default().join("site.rs"), code)
}

/// Files below `dir`; models are not part of the program.
fn collect(dir: &Path, prefix: &str, into: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let key = format!("{prefix}{name}");
        if path.is_file() {
            into.push((key, path));
        } else if key != "models" {
            collect(&path, &format!("{key}/"), into)?;
        }
    }
    Ok(())
}
