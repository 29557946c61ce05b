//! A kernel of one's own, and a wgpu device shared with an application.
//!
//! ```text
//! cargo run -p firelight-custom-kernel
//! ```
//! 1. `soft_threshold.rs` and `soft_threshold.wgsl` define a kernel outside the `firelight-kernels` crate, just as the built-in
//!    ones are defined. Its cases are checked against its f64 reference on the CPU and, where there is an adapter, on the GPU;
//!    then it runs on some data.
//! 2. `shared.rs` opens a wgpu device as an application would, hands it to Firelight, and passes buffers both ways without
//!    a copy.
//!
//! Without a GPU everything that needs one says that it is skipped, and the rest runs.
#![allow(clippy::print_stdout)]

mod shared;
mod soft_threshold;

use anyhow::Result;
use firelight_kernels::harness::check_kernel;
use firelight_kernels::{CpuOptions, Device, GpuOptions, Recorder};
use soft_threshold::{SoftThreshold, soft_threshold};

fn main() -> Result<()> {
    pollster::block_on(run())
}

async fn run() -> Result<()> {
    demonstrate(&Device::cpu(&CpuOptions::default())?).await?;
    match Device::gpu(&GpuOptions::default()).await {
        Ok(device) => demonstrate(&device).await?,
        Err(e) => println!("SKIPPED the GPU: {e}\n"),
    }
    match shared::run().await? {
        Some(text) => print!("shared with an application: {text}"),
        None => println!("SKIPPED the shared device: no adapter"),
    }
    Ok(())
}

/// Checks the kernel on a device, then records two calls of it, prints them and runs them.
async fn demonstrate(device: &Device) -> Result<()> {
    let cases = check_kernel(device, &SoftThreshold).await?;
    println!("{}: {cases} cases like the reference", device.name());

    let x = device.upload_f32(&[-2.5, -1.0, -0.25, 0.0, 0.25, 1.0, 2.5], &[7])?;
    let mut rec = Recorder::new(device);
    let half = soft_threshold(&mut rec, &x, 0.5)?;
    let y = soft_threshold(&mut rec, &half, 0.25)?;
    rec.read_back(&y);
    // Nothing has run yet; a recording can be printed, and submitted as often as one likes.
    let mut recording = rec.finish()?;
    print!("{}", recording.listing());
    let bytes = recording.submit()?.wait().await?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    println!("{values:?}\n");
    Ok(())
}
