//! What `firelight tune` measured, on disk: read at the next start on the same device.
//!
//! One JSON file per device and rung in the folder `tuning` of [`EngineOptions::cache_dir`](crate::EngineOptions::cache_dir). It says what
//! it was measured on, adapter, driver and version of the engine; a file of something else, or a damaged one, is not used, and the
//! engine's report says so. Deleting it undoes it.

use crate::source::disk::write_atomic;
use crate::{Error, Result};
use firelight_kernels::tune::{Tuned, Tuning};
use firelight_kernels::{DType, Device, KERNELS};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
/// Larger files are not of this kind.
const MOST: u64 = 1 << 20;

/// A device's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    /// [`Device::identity`].
    measured_on: String,
    chosen: Vec<Chosen>,
}

/// A number that is not the default.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    /// `kernel.number`.
    name: String,
    /// Element type of weights or caches.
    dtype: String,
    value: u32,
    /// How many times as fast as the default it was.
    gain: f64,
}

/// Whether a device uses measured numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TuningUse {
    /// There is no file: `firelight tune` was not run for this device.
    #[default]
    None,
    /// The file's numbers are in use; so many differ from the defaults.
    Used {
        /// The file.
        file: PathBuf,
        /// Numbers that differ from the defaults.
        chosen: usize,
    },
    /// There is a file, and it is not used.
    Ignored {
        /// The file.
        file: PathBuf,
        /// Why, for people.
        why: String,
    },
}

/// Where the numbers of `device` are.
pub fn file_of(cache_dir: &Path, device: &Device) -> PathBuf {
    let mut name = String::new();
    for c in format!("{} {}", device.name(), device.rung()).chars() {
        match c.is_ascii_alphanumeric() {
            true => name.push(c.to_ascii_lowercase()),
            false if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            false => {}
        }
    }
    name.truncate(120);
    cache_dir.join("tuning").join(format!("{name}.json"))
}

/// The device with the numbers of its file, if there is one that was measured on the same.
pub(crate) fn apply(cache_dir: Option<&Path>, device: Device) -> (Device, TuningUse) {
    let Some(file) = cache_dir.map(|d| file_of(d, &device)) else {
        return (device, TuningUse::None);
    };
    match read(&file, &device) {
        Ok(Some((tuning, chosen))) => (device.tuned(tuning), TuningUse::Used { file, chosen }),
        Ok(None) => (device, TuningUse::None),
        Err(why) => (device, TuningUse::Ignored { file, why }),
    }
}

/// `None`: no file. The error is for people.
fn read(file: &Path, device: &Device) -> Result<Option<(Tuning, usize)>, String> {
    let bytes = match fs::metadata(file) {
        Ok(m) if m.len() > MOST => return Err("it is too large to be of this kind".to_owned()),
        Ok(_) => fs::read(file).map_err(|e| format!("it cannot be read: {e}"))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("it cannot be read: {e}")),
    };
    let found: File = serde_json::from_slice(&bytes).map_err(|e| format!("it is damaged: {e}"))?;
    if found.format != FORMAT {
        return Err(format!("its format is {}, expected {FORMAT}", found.format));
    }
    let (theirs, ours) = (&found.measured_on, device.identity());
    if *theirs != ours {
        return Err(format!(
            "it was measured on {theirs}; this is {ours}: run `firelight tune` again"
        ));
    }
    let mut tuning = Tuning::NONE;
    for c in &found.chosen {
        let tunable = Tuning::find(KERNELS, &c.name)
            .ok_or_else(|| format!("it is damaged: it names `{}`", c.name))?;
        let dtype = c
            .dtype
            .parse::<DType>()
            .map_err(|e| format!("it is damaged: {e}"))?;
        tuning = tuning
            .with(tunable, dtype, c.value)
            .map_err(|e| format!("it is damaged: {e}"))?;
    }
    Ok(Some((tuning, found.chosen.len())))
}

/// Keeps what was found for `device`, and gives the file.
///
/// # Errors
/// `Io` if it cannot be written.
pub fn save(cache_dir: &Path, device: &Device, tuned: &Tuned) -> Result<PathBuf> {
    let file = file_of(cache_dir, device);
    let changed = tuned.picks.iter().filter(|p| p.value != p.tunable.default);
    let chosen = changed.map(|p| Chosen {
        name: p.tunable.name.to_owned(),
        dtype: p.dtype.name().to_owned(),
        value: p.value,
        gain: (p.gain() * 1e3).round() / 1e3,
    });
    let content = File {
        format: FORMAT,
        measured_on: device.identity(),
        chosen: chosen.collect(),
    };
    let io = |source: std::io::Error| Error::Io {
        path: file.display().to_string(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(&content).map_err(|e| io(e.into()))?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    write_atomic(&file, &bytes)?;
    Ok(file)
}
