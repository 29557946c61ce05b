//! Compiled pipelines, kept on disk from one run of a program to the next.
//!
//! What the driver gives for this (`Features::PIPELINE_CACHE`, of Vulkan so far) goes into one file per kind of adapter. Before
//! it stands what it belongs to: adapter, driver, version of this crate, and a sum. A file that says something else, or is cut off,
//! counts as none, and the next one takes its place.
#![allow(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const MAGIC: &[u8; 8] = b"FLPIPE01";
/// Larger files are not read.
const MOST: u64 = 256 << 20;

/// A driver's cache and its file.
pub(super) struct Kept {
    cache: wgpu::PipelineCache,
    file: PathBuf,
    /// What the file has to be for.
    belongs_to: String,
    /// The sum of what is in the file.
    saved: Mutex<Option<u64>>,
}

/// FNV-1a: against files that were cut off or mixed up, not against people who may write to the user's folder.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The bytes of a file: magic, length of what it belongs to, that, the sum of the data, the data.
fn pack(belongs_to: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((belongs_to.len() as u32).to_le_bytes());
    bytes.extend(belongs_to.as_bytes());
    bytes.extend(sum(data).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// The data of a file, if it is whole and belongs to this.
fn unpack<'a>(bytes: &'a [u8], belongs_to: &str) -> Option<&'a [u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let (expected, data) = rest.split_first_chunk::<8>()?;
    let right = name == belongs_to.as_bytes() && sum(data) == u64::from_le_bytes(*expected);
    right.then_some(data)
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let small = fs::metadata(file).ok()?.len() <= MOST;
    small.then(|| fs::read(file).ok()).flatten()
}

/// Adapter, driver and version of this crate.
pub(super) fn identity(info: &wgpu::AdapterInfo) -> String {
    format!(
        "{} · {} · {} · {} {}",
        info.name,
        info.driver,
        info.driver_info,
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
    )
}

impl Kept {
    /// The pipelines in `folder` for this device. `None` where there is no such thing, or it fails: then everything is compiled.
    pub(super) fn open(device: &wgpu::Device, folder: &Path) -> Option<Kept> {
        let features = device.features();
        if !features.contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let info = device.adapter_info();
        let belongs_to = identity(&info);
        let file = folder.join(wgpu::util::pipeline_cache_key(&info)?);
        let bytes = read(&file);
        let data = bytes.as_deref().and_then(|b| unpack(b, &belongs_to));
        let cache = make(device, data).or_else(|| make(device, None))?;
        Some(Kept {
            cache,
            file,
            belongs_to,
            saved: Mutex::new(data.map(sum)),
        })
    }

    pub(super) fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file, if there is something new. That it cannot be written harms nobody.
    pub(super) fn save(&self) {
        let Some(data) = self.cache.get_data() else {
            return;
        };
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Some(sum(&data));
        if *saved == now || data.len() as u64 > MOST / 2 {
            return;
        }
        if write(&self.file, &pack(&self.belongs_to, &data)).is_ok() {
            *saved = now;
        }
    }
}

/// Whole or not at all: others may read or write at the same time.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("part-{}", std::process::id()));
    let done = fs::write(&part, bytes).and_then(|()| fs::rename(&part, file));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

fn make(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::PipelineCacheDescriptor {
        label: Some("firelight"),
        data,
        fallback: true,
    };
    // SAFETY: the data was returned by `get_data` for this adapter and driver, as far as a name and a sum before it can say; the
    // driver checks its own header, too.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    let refused = pollster::block_on(scope.pop());
    refused.is_none().then_some(cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_or_changed_or_of_another_driver_counts_as_none() {
        let bytes = pack("llvmpipe · Mesa 1", b"compiled");
        assert_eq!(unpack(&bytes, "llvmpipe · Mesa 1"), Some(&b"compiled"[..]));
        assert_eq!(unpack(&bytes, "llvmpipe · Mesa 2"), None);
        for end in 0..bytes.len() {
            assert_eq!(
                unpack(&bytes[..end], "llvmpipe · Mesa 1"),
                None,
                "{end} bytes"
            );
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert_eq!(unpack(&changed, "llvmpipe · Mesa 1"), None, "byte {at}");
        }
    }
}
