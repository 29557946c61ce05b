//! The GPU device over wgpu: opening, memory, pipelines, submitting, reading back.

mod compile;
#[cfg(not(target_arch = "wasm32"))]
mod kept;
mod open;
mod pending;
#[cfg(not(target_arch = "wasm32"))]
mod timing;

pub use open::{AdapterReport, GpuOptions, adapters};
pub(crate) use pending::Pending;

use super::{Device, Span};
use crate::buffer::Buffer;
use crate::error::DeviceFault;
use crate::kernel::Access;
use crate::memory::{Holder, Ledger};
use crate::recorder::{Binding, RecordedCall, SLOT};
use crate::{Array, Error, Result};
use pending::{Staging, StagingRing};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Which operands of a bind group are read-only.
type LayoutKey = Vec<bool>;

struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A wgpu device with its caches.
pub(crate) struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    ledger: Arc<Ledger>,
    /// The first thing that made the device unusable.
    fault: Fault,
    /// False for an application's device.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    owned: bool,
    layouts: Mutex<HashMap<LayoutKey, Arc<Layout>>>,
    pipelines: Mutex<HashMap<String, wgpu::ComputePipeline>>,
    /// Pipelines of earlier runs.
    #[cfg(not(target_arch = "wasm32"))]
    kept: Option<kept::Kept>,
    /// Bytes written since the last flush: wgpu keeps a staging copy of each write until a submit has run.
    unflushed: Mutex<u64>,
}

/// One dispatch of a recording, resolved.
struct Step {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    param_offset: u32,
    grid: [u32; 3],
}

/// A recording's pipelines and bind groups.
pub(crate) struct Prepared {
    steps: Vec<Step>,
    readback: Option<(Array, StagingRing)>,
    /// Keeps the parameter arena's memory.
    _arena: Option<Arc<Buffer>>,
}

/// What was reported about a device outside of any call: natively its loss, in browsers every error.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<(DeviceFault, String)>>>);

impl Fault {
    /// Notes a report; the first one stays.
    fn note(&self, kind: DeviceFault, what: String) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert((kind, what));
    }

    fn get(&self) -> Option<(DeviceFault, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Writes above this much are flushed, so that loading a model never holds more than this in staging.
const FLUSH_BYTES: u64 = 8 << 20;

impl Gpu {
    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        ledger: &Arc<Ledger>,
        fault: Fault,
        owned: bool,
    ) -> Self {
        Gpu {
            device,
            queue,
            ledger: Arc::clone(ledger),
            fault,
            owned,
            layouts: Mutex::default(),
            pipelines: Mutex::default(),
            #[cfg(not(target_arch = "wasm32"))]
            kept: None,
            unflushed: Mutex::new(0),
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn identity(&self) -> String {
        kept::identity(&self.device.adapter_info())
    }

    pub(crate) fn lost(&self) -> Option<String> {
        self.fault.get().map(|(_, what)| what)
    }

    pub(crate) fn destroy(&self) {
        self.device.destroy();
    }

    fn check_lost(&self) -> Result<()> {
        match self.fault.get() {
            Some((kind, reason)) => Err(Error::device(kind, reason)),
            None => Ok(()),
        }
    }

    /// Waits for everything written and submitted.
    pub(crate) async fn flushed(&self, device: &Device) -> Result<()> {
        self.check_lost()?;
        *self
            .unflushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = 0;
        let index = self.queue.submit([]);
        Pending::start(self, device, None, index)?.wait().await?;
        Ok(())
    }

    /// Runs `f` and turns what wgpu reports about it into an error. In browsers the report comes later and shows when
    /// the next result is awaited.
    fn scoped<T>(&self, what: impl FnOnce() -> String, f: impl FnOnce() -> T) -> Result<T> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = f();
        let (refused, full) = (validation.pop(), memory.pop());
        #[cfg(not(target_arch = "wasm32"))]
        {
            // wgpu-core answers at once.
            if let Some(e) = pollster::block_on(full) {
                return Err(Error::device(
                    DeviceFault::OutOfMemory,
                    format!("{}: {e}", what()),
                ));
            }
            if let Some(e) = pollster::block_on(refused) {
                self.check_lost()?;
                return Err(Error::device(
                    DeviceFault::Refused,
                    format!("{}: {e}", what()),
                ));
            }
        }
        #[cfg(target_arch = "wasm32")]
        {
            let (fault, what) = (self.fault.clone(), what());
            wasm_bindgen_futures::spawn_local(async move {
                if let Some(e) = full.await {
                    fault.note(DeviceFault::OutOfMemory, format!("{what}: {e}"));
                }
                if let Some(e) = refused.await {
                    fault.note(DeviceFault::Refused, format!("{what}: {e}"));
                }
            });
        }
        Ok(value)
    }

    pub(crate) fn create_buffer(&self, size: u64, holder: Holder) -> Result<wgpu::Buffer> {
        let max = self.device.limits().max_buffer_size;
        if size > max {
            return Err(Error::Limit {
                what: "bytes of a device buffer",
                max,
                got: size,
            });
        }
        let mut usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        usage |= match holder {
            Holder::Staging => wgpu::BufferUsages::MAP_READ,
            // These two share a pool, and so must share their usages.
            Holder::Params | Holder::Activations => {
                wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM
            }
            _ => wgpu::BufferUsages::STORAGE,
        };
        if holder == Holder::Staging {
            usage -= wgpu::BufferUsages::COPY_SRC;
        }
        self.check_lost()?;
        self.scoped(
            || format!("{size} bytes for {}", holder.name()),
            || {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(holder.name()),
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            },
        )
    }

    pub(crate) fn trim(&self) {
        // Freed buffers are only given back when the device is polled.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// Copies `bytes` into a buffer before the next submit; a tail that is not a whole word is padded with zeroes.
    pub(crate) fn write(&self, buffer: &Arc<Buffer>, offset: u64, bytes: &[u8]) -> Result<()> {
        let target = buffer
            .gpu()
            .ok_or_else(|| Error::invalid("an array of another device"))?;
        self.check_lost()?;
        let whole = bytes.len() & !3;
        // wgpu stages each write in memory of its size: pieces bound it.
        for (i, piece) in bytes[..whole].chunks(FLUSH_BYTES as usize).enumerate() {
            self.queue
                .write_buffer(target, offset + i as u64 * FLUSH_BYTES, piece);
            let mut unflushed = self
                .unflushed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *unflushed += piece.len() as u64;
            if *unflushed >= FLUSH_BYTES {
                *unflushed = 0;
                self.queue.submit([]);
                self.block()?;
            }
        }
        if whole < bytes.len() {
            let mut tail = [0u8; 4];
            tail[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue
                .write_buffer(target, offset + whole as u64, &tail);
        }
        Ok(())
    }

    /// Waits for everything submitted, where that is possible.
    fn block(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(e) = self.device.poll(wgpu::PollType::wait_indefinitely()) {
            self.check_lost()?;
            return Err(Error::device(
                DeviceFault::Refused,
                format!("waiting for the device: {e}"),
            ));
        }
        Ok(())
    }

    pub(crate) fn copy(&self, spans: &[Span<'_>]) -> Result<()> {
        self.check_lost()?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for s in spans {
            let (Some(src), Some(dst)) = (s.from.lease.buffer.gpu(), s.to.lease.buffer.gpu())
            else {
                return Err(Error::invalid("copy between devices"));
            };
            encoder.copy_buffer_to_buffer(
                src,
                s.from.offset + s.from_byte,
                dst,
                s.to.offset + s.to_byte,
                s.bytes.next_multiple_of(4),
            );
        }
        self.queue.submit([encoder.finish()]);
        Ok(())
    }

    fn layout(&self, key: &LayoutKey) -> Arc<Layout> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let buffer = |binding: u32, ty: wgpu::BufferBindingType, dynamic: bool| {
                wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty,
                        has_dynamic_offset: dynamic,
                        min_binding_size: None,
                    },
                    count: None,
                }
            };
            let mut entries = vec![buffer(0, wgpu::BufferBindingType::Uniform, true)];
            entries.extend(key.iter().enumerate().map(|(i, &read_only)| {
                buffer(
                    i as u32 + 1,
                    wgpu::BufferBindingType::Storage { read_only },
                    false,
                )
            }));
            let group = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label: None,
                    entries: &entries,
                });
            let pipeline = self
                .device
                .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &[Some(&group)],
                    immediate_size: 0,
                });
            Arc::new(Layout { group, pipeline })
        };
        Arc::clone(layouts.entry(key.clone()).or_insert_with(make))
    }

    /// Resolves recorded calls to pipelines and bind groups, and uploads their parameters.
    pub(crate) fn prepare(
        &self,
        device: &Device,
        calls: &[RecordedCall],
        readback: Option<&Array>,
    ) -> Result<Prepared> {
        self.check_lost()?;
        let arena = match calls.len() as u64 {
            0 => None,
            n => Some(device.buffer(n * SLOT, Holder::Params)?),
        };
        let mut slots = vec![0u8; calls.len() * SLOT as usize];
        let mut groups: HashMap<Vec<(*const Buffer, u64, u64, bool)>, wgpu::BindGroup> =
            HashMap::new();
        let mut steps = Vec::with_capacity(calls.len());
        let plans: Vec<_> = calls.iter().map(|c| (c.kernel, &c.plan)).collect();
        let pipelines = self.pipelines(&plans)?;
        for ((i, call), (pipeline, layout)) in calls.iter().enumerate().zip(pipelines) {
            let slot = &mut slots[i * SLOT as usize..(i + 1) * SLOT as usize];
            let params: &[u8] = bytemuck::cast_slice(&call.params);
            slot.get_mut(..params.len())
                .ok_or(Error::Limit {
                    what: "bytes of a call's parameters",
                    max: SLOT,
                    got: params.len() as u64,
                })?
                .copy_from_slice(params);
            let id = call
                .bindings
                .iter()
                .map(|b| {
                    (
                        Arc::as_ptr(&b.buffer),
                        b.offset,
                        b.size,
                        b.access == Access::Read,
                    )
                })
                .collect();
            let group = match groups.entry(id) {
                std::collections::hash_map::Entry::Occupied(e) => e.get().clone(),
                std::collections::hash_map::Entry::Vacant(e) => {
                    let group = self.bind_group(&layout, arena.as_deref(), &call.bindings)?;
                    e.insert(group).clone()
                }
            };
            steps.push(Step {
                pipeline,
                group,
                param_offset: i as u32 * SLOT as u32,
                grid: call.plan.grid,
            });
        }
        if let Some(arena) = &arena {
            self.write(arena, 0, &slots)?;
        }
        let readback = readback.map(|array| (array.clone(), StagingRing::default()));
        Ok(Prepared {
            steps,
            readback,
            _arena: arena,
        })
    }

    fn bind_group(
        &self,
        layout: &Layout,
        arena: Option<&Buffer>,
        bindings: &[Binding],
    ) -> Result<wgpu::BindGroup> {
        let foreign = || Error::invalid("an operand lives on another device");
        let mut entries = Vec::with_capacity(bindings.len() + 1);
        let entry = |binding: u32, buffer, offset, size| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: std::num::NonZeroU64::new(size),
            }),
        };
        entries.push(entry(
            0,
            arena.and_then(Buffer::gpu).ok_or_else(foreign)?,
            0,
            SLOT,
        ));
        for (i, b) in bindings.iter().enumerate() {
            let buffer = b.buffer.gpu().ok_or_else(foreign)?;
            entries.push(entry(
                i as u32 + 1,
                buffer,
                b.offset,
                b.size.next_multiple_of(4),
            ));
        }
        let make = || {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout.group,
                entries: &entries,
            })
        };
        // A browser reports later in any case; without a scope of its own an error is heard by the device's handler.
        let group = if cfg!(target_arch = "wasm32") {
            make()
        } else {
            self.scoped(|| "making a bind group".to_owned(), make)?
        };
        self.ledger
            .bind_groups_created
            .fetch_add(1, Ordering::Relaxed);
        Ok(group)
    }

    /// Queues a recording: one compute pass, one submit.
    pub(crate) fn submit(&self, device: &Device, prepared: &Prepared) -> Result<Pending> {
        self.check_lost()?;
        let staging = match &prepared.readback {
            Some((array, ring)) => Some(ring.take(self, device, array.nbytes)?),
            None => None,
        };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let mut current: Option<&wgpu::ComputePipeline> = None;
            for step in &prepared.steps {
                if current != Some(&step.pipeline) {
                    pass.set_pipeline(&step.pipeline);
                    current = Some(&step.pipeline);
                }
                pass.set_bind_group(0, &step.group, &[step.param_offset]);
                let [x, y, z] = step.grid;
                pass.dispatch_workgroups(x, y, z);
            }
        }
        if let (Some(staging), Some((array, _))) = (&staging, &prepared.readback) {
            let source = array
                .lease
                .buffer
                .gpu()
                .ok_or_else(|| Error::invalid("an array of another device"))?;
            let bytes = array.nbytes.next_multiple_of(4);
            encoder.copy_buffer_to_buffer(source, array.offset, staging.buffer()?, 0, bytes);
        }
        let index = self.queue.submit([encoder.finish()]);
        Pending::start(self, device, staging, index)
    }

    pub(crate) async fn read(&self, device: &Device, array: &Array) -> Result<Vec<u8>> {
        self.check_lost()?;
        let source = array
            .lease
            .buffer
            .gpu()
            .ok_or_else(|| Error::invalid("an array of another device"))?;
        let staging = Staging::new(device, array.nbytes)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let bytes = array.nbytes.next_multiple_of(4);
        encoder.copy_buffer_to_buffer(source, array.offset, staging.buffer()?, 0, bytes);
        let index = self.queue.submit([encoder.finish()]);
        Pending::start(self, device, Some(staging), index)?
            .wait()
            .await
    }
}

/// Where garbage is collected later, memory would not come back in time for the next model.
#[cfg(target_arch = "wasm32")]
impl Drop for Gpu {
    fn drop(&mut self) {
        if self.owned {
            self.device.destroy();
        }
    }
}
