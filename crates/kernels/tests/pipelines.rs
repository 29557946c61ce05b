//! Compiled pipelines on disk: kept, read again, and left aside when they are not ours.
#![cfg(feature = "gpu")]

use firelight_kernels::harness::check_kernel;
use firelight_kernels::{Device, GpuOptions, rms_norm::RmsNorm};
use pollster::block_on;
use std::fs;
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Folder(folder)
    }

    fn files(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(&self.0).into_iter().flatten();
        all.flatten().map(|f| f.path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Path) -> firelight_kernels::Result<Device> {
    block_on(Device::gpu(&GpuOptions {
        pipelines: Some(folder.to_owned()),
        ..Default::default()
    }))
}

#[test]
fn what_was_compiled_is_kept_and_what_is_broken_is_left_aside() {
    let name = "what_was_compiled_is_kept_and_what_is_broken_is_left_aside";
    let folder = Folder::new("firelight-pipelines");
    let Some(device) = firelight_testing::gpu_or_skip(name, || open(&folder.0)) else {
        return;
    };
    assert!(folder.files().is_empty(), "nothing to keep yet");
    block_on(check_kernel(&device, &RmsNorm)).expect("right");
    let files = folder.files();
    let [file] = files.as_slice() else {
        firelight_testing::skip!(name, "keeping", "the driver gives no pipelines");
        return;
    };
    let whole = fs::read(file).expect("the file");
    // Read by the next run, which has nothing new to say.
    let again = open(&folder.0).expect("a device");
    block_on(check_kernel(&again, &RmsNorm)).expect("right");
    assert_eq!(folder.files(), files, "no file beside it");
    // Cut off, changed, of somebody else, empty: no error, and a whole file after.
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let foreign = b"something else entirely".to_vec();
    for broken in [
        whole[..whole.len() - 1].to_vec(),
        changed,
        foreign,
        Vec::new(),
    ] {
        fs::write(file, &broken).expect("written");
        let device = open(&folder.0).expect("a device");
        block_on(check_kernel(&device, &RmsNorm)).expect("right");
        assert!(
            fs::read(file).expect("the file").len() >= whole.len(),
            "written anew"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_written_harms_nobody() {
    let name = "a_folder_that_cannot_be_written_harms_nobody";
    let folder = Folder::new("firelight-no-folder");
    fs::write(&folder.0, b"a file").expect("written");
    let Some(device) = firelight_testing::gpu_or_skip(name, || open(&folder.0)) else {
        let _ = fs::remove_file(&folder.0);
        return;
    };
    block_on(check_kernel(&device, &RmsNorm)).expect("right");
    let _ = fs::remove_file(&folder.0);
}
