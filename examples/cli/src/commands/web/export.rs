//! `firelight web --export`: the site and its models as files, for any host of static files.

use super::headers::FIXED;
use super::site::{Opened, Site};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Writes everything. Fails if the folder holds something that is not a site.
pub(crate) fn write(site: &Site, dir: &Path) -> Result<u64> {
    let used = dir.read_dir().is_ok_and(|mut d| d.next().is_some());
    if used && !dir.join("site.js").is_file() {
        bail!(
            "--export {}: the folder is not empty and no site; name another one",
            dir.display()
        );
    }
    let mut total = 0;
    for key in site.keys() {
        let path = dir.join(key);
        let put = || -> io::Result<u64> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match site.open(key)? {
                Some((Opened::Bytes(bytes), _)) => {
                    fs::write(&path, &bytes).map(|()| bytes.len() as u64)
                }
                Some((Opened::File(mut file, _), _)) => {
                    io::copy(&mut file, &mut File::create(&path)?)
                }
                None => Err(io::ErrorKind::NotFound.into()),
            }
        };
        total += put().with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = dir.join("_headers");
    fs::write(&path, host_headers(site))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(total)
}

/// The headers a host should send, in the form that several hosts read from a file of this name.
fn host_headers(site: &Site) -> String {
    let mut text = format!(
        "/*\n  Content-Security-Policy: {}\n",
        site.connect.policy(false)
    );
    for (name, value) in FIXED {
        text.push_str(&format!("  {name}: {value}\n"));
    }
    text
}
