//! Choosing an adapter and opening a device at a rung.

use super::{Fault, Gpu};
use crate::device::Rung;
use crate::error::DeviceFault;
use crate::kernel::Caps;
use crate::memory::Ledger;
use crate::tune::Tuning;
use crate::{Error, Result};
use std::sync::Arc;

/// Which GPU, and how.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// The adapter's index in [`adapters`]; `None`: the first real one, else the first software one.
    pub adapter: Option<usize>,
    /// The rung; `None`: the best the adapter has.
    pub rung: Option<Rung>,
    /// A folder in which compiled pipelines are kept from one run to the next, where the driver can (Vulkan); it is made when there
    /// is something to keep. Browsers keep theirs themselves.
    pub pipelines: Option<std::path::PathBuf>,
}

/// What an adapter says of itself.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// Index for [`GpuOptions::adapter`].
    pub index: usize,
    /// The adapter's name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `webgpu`.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// True if a processor imitates a GPU here (lavapipe, SwiftShader, WARP): slower than the CPU rung.
    pub software: bool,
    /// Shaders may use f16.
    pub f16: bool,
    /// Shaders may use subgroups. In browsers, which wgpu cannot ask for them: the adapter states their size, and whoever runs
    /// this there adds `subgroups` to what `GPUAdapter.requestDevice` is asked for.
    pub subgroups: bool,
    /// Smallest and largest subgroup.
    pub subgroup_size: (u32, u32),
    /// Bytes of the largest storage binding.
    pub max_binding: u64,
    /// Bytes of the largest buffer.
    pub max_buffer: u64,
    /// Bytes of workgroup memory.
    pub max_shared: u32,
    /// Storage buffers a shader stage can bind.
    pub max_storage_buffers: u32,
}

impl AdapterReport {
    fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
        // A browser that hides the name says nothing else either.
        let name = match info.name.as_str() {
            "" => "a GPU the browser does not name",
            name => name,
        };
        let imitated = ["swiftshader", "llvmpipe", "basic render"];
        let imitated = imitated.iter().any(|n| name.to_lowercase().contains(n));
        let in_browser = cfg!(target_arch = "wasm32") && info.subgroup_min_size > 0;
        AdapterReport {
            index,
            name: name.to_owned(),
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .to_owned(),
            software: info.device_type == wgpu::DeviceType::Cpu || imitated,
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP) || in_browser,
            subgroup_size: (info.subgroup_min_size, info.subgroup_max_size),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_shared: limits.max_compute_workgroup_storage_size,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        }
    }

    /// The best rung this adapter has the features for.
    pub fn best_rung(&self) -> Rung {
        match (self.f16, self.subgroups) {
            (true, true) => Rung::GpuF16Subgroups,
            (true, false) => Rung::GpuF16,
            (false, _) => Rung::GpuF32,
        }
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // Validation layers are for debugging drivers; wgpu's own validation is always on.
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

async fn list(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    if found.is_empty() {
        // Browsers list nothing; they hand out one adapter on request.
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        found.extend(instance.request_adapter(&options).await);
    }
    // Real GPUs first, discrete before integrated; the order is otherwise the driver's.
    found.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    found
}

/// The adapters there are, real ones first. Empty if there is no driver.
pub async fn adapters() -> Vec<AdapterReport> {
    let found = list(&instance()).await;
    found
        .iter()
        .enumerate()
        .map(|(i, a)| AdapterReport::new(i, a))
        .collect()
}

fn caps_of(features: wgpu::Features, limits: &wgpu::Limits) -> Caps {
    Caps {
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        max_groups: limits.max_compute_workgroups_per_dimension,
        max_binding: limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size),
        max_shared: limits.max_compute_workgroup_storage_size,
        tuning: Tuning::NONE,
    }
}

impl Gpu {
    pub(crate) async fn open(
        options: &GpuOptions,
        ledger: &Arc<Ledger>,
    ) -> Result<(Gpu, Caps, Rung, String)> {
        let found = list(&instance()).await;
        let names: Vec<_> = found.iter().map(|a| a.get_info().name).collect();
        let index = options.adapter.unwrap_or(0);
        let adapter = found.get(index).ok_or_else(|| {
            let message = if names.is_empty() {
                "no GPU adapter was found; install a Vulkan driver, or run on the CPU".to_owned()
            } else {
                format!(
                    "adapter {index}; there are 0..{}: {}",
                    names.len(),
                    names.join(", ")
                )
            };
            Error::device(DeviceFault::NoAdapter, message)
        })?;
        let report = AdapterReport::new(index, adapter);
        let best = report.best_rung();
        let rung = options.rung.unwrap_or(best);
        if !rung.is_gpu() {
            return Err(Error::invalid(format!("rung {rung} is not a GPU's")));
        }
        if rung < best {
            return Err(Error::Unsupported(format!(
                "rung {rung} on {}: the adapter has f16: {}, subgroups: {}; its best rung is {best}",
                report.name, report.f16, report.subgroups
            )));
        }
        let mut features = wgpu::Features::empty();
        if rung <= Rung::GpuF16 {
            features |= wgpu::Features::SHADER_F16;
        }
        // In browsers wgpu cannot ask for subgroups; the page does (see `AdapterReport::subgroups`).
        if rung == Rung::GpuF16Subgroups && !cfg!(target_arch = "wasm32") {
            features |= wgpu::Features::SUBGROUP;
        }
        // For profiles; in browsers it may be coarse or refused.
        if !cfg!(target_arch = "wasm32") {
            features |= adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
            if options.pipelines.is_some() {
                features |= adapter.features() & wgpu::Features::PIPELINE_CACHE;
            }
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("firelight"),
                required_features: features,
                required_limits: adapter.limits(),
                ..Default::default()
            })
            .await
            .map_err(|e| Error::device(DeviceFault::Refused, format!("{}: {e}", report.name)))?;
        let fault = Fault::default();
        let heard = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            heard.note(DeviceFault::Lost, format!("{reason:?}: {message}"));
        });
        // Errors inside our scopes never come here; anything else must not abort the application.
        let heard = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            let kind = match error {
                wgpu::Error::OutOfMemory { .. } => DeviceFault::OutOfMemory,
                _ => DeviceFault::Lost,
            };
            heard.note(kind, format!("uncaptured: {error}"));
        }));
        let mut caps = caps_of(device.features(), &device.limits());
        if cfg!(target_arch = "wasm32") {
            caps.subgroups = rung == Rung::GpuF16Subgroups;
        }
        let name = format!("{} ({})", report.name, report.backend);
        #[cfg_attr(target_arch = "wasm32", allow(unused_mut))]
        let mut gpu = Gpu::new(device, queue, ledger, fault, true);
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(folder) = &options.pipelines {
            gpu.kept = super::kept::Kept::open(&gpu.device, folder);
        }
        Ok((gpu, caps, rung, name))
    }

    /// Joins an application's device; its callbacks stay the application's.
    pub(crate) fn adopt(
        device: wgpu::Device,
        queue: wgpu::Queue,
        ledger: &Arc<Ledger>,
    ) -> (Gpu, Caps, Rung, String) {
        let caps = caps_of(device.features(), &device.limits());
        let rung = match (caps.f16, caps.subgroups) {
            (true, true) => Rung::GpuF16Subgroups,
            (true, false) => Rung::GpuF16,
            (false, _) => Rung::GpuF32,
        };
        let caps = match rung {
            Rung::GpuF32 => Caps {
                subgroups: false,
                ..caps
            },
            _ => caps,
        };
        let name = format!("{} (shared)", device.adapter_info().name);
        (
            Gpu::new(device, queue, ledger, Fault::default(), false),
            caps,
            rung,
            name,
        )
    }
}
