//! One wgpu device for an application and its kernels: no second device, no copies between them.

use crate::soft_threshold::soft_threshold;
use anyhow::{Context, Result};
use firelight_kernels::{DType, Device, Recorder};

/// What an application has anyway: here it is made by hand, in a game or a viewer it is the renderer's.
struct App {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl App {
    async fn open() -> Option<App> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let adapter = instance.request_adapter(&Default::default()).await.ok()?;
        let (device, queue) = adapter.request_device(&Default::default()).await.ok()?;
        Some(App { device, queue })
    }

    fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("the application's"),
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    }

    /// Reads `bytes` of a buffer with the application's own encoder.
    fn read(&self, from: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<f32>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer(bytes, usage);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, offset, &staging, 0, bytes);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| ());
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let values = bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?);
        staging.unmap();
        Ok(values)
    }
}

/// Runs a kernel on a buffer of the application, and lets the application read the result where it is. `None`: no adapter.
pub(crate) async fn run() -> Result<Option<String>> {
    let Some(app) = App::open().await else {
        return Ok(None);
    };
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let samples = app.buffer(16, usage);

    // Handles are counted: these clones name the same device and queue.
    let device = Device::from_wgpu(app.device.clone(), app.queue.clone());
    let x = device.array_from_wgpu(samples.clone(), DType::F32, &[4])?;
    let mut rec = Recorder::new(&device);
    let y = soft_threshold(&mut rec, &x, 1.0)?;
    let mut recording = rec.finish()?;

    let (result, offset, bytes) = y.as_wgpu().context("a GPU array")?;
    let mut text = format!("{}\n", device.name());
    for frame in [[3.0f32, -0.5, 1.5, -2.0], [0.25, 10.0, -10.0, 1.0]] {
        // The application writes its own buffer, and the recording sees it: it holds the buffer, not its contents.
        app.queue
            .write_buffer(&samples, 0, bytemuck::cast_slice(&frame));
        let submission = recording.submit()?;
        // One queue: what the application submits now comes after. It need not wait for the kernel.
        let shrunk = app.read(result, offset, bytes)?;
        submission.wait().await?;
        text.push_str(&format!("{frame:?} -> {shrunk:?}\n"));
    }
    Ok(Some(text))
}
