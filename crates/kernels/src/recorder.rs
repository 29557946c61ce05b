//! Recording kernel calls, and replaying them.
//!
//! A model's `forward` pushes calls onto a [`Recorder`]; nothing runs. [`Recorder::finish`] turns them into a
//! [`Recording`]: data that can be printed, and submitted any number of times. What changes between two submits
//! (positions, token ids, sampling parameters) lives in [`Dynamic`] arrays, sections of one step buffer that is written
//! once per submit. A call's fixed parameters live in one arena, bound with a dynamic offset.

#[cfg(not(target_arch = "wasm32"))]
mod profile;

#[cfg(not(target_arch = "wasm32"))]
pub use profile::CallTime;

use crate::array::FreeList;
use crate::buffer::Buffer;
use crate::device::{Device, DeviceKind};
use crate::kernel::{Access, Call, Kernel, Plan, View, check_operands, words};
use crate::memory::Holder;
use crate::weight::{Corrections, LowRank};
use crate::{Array, Error, Result, Weight};
use firelight_tensor::DType;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every section and parameter slot: WebGPU's largest required offset alignment.
pub(crate) const SLOT: u64 = 256;
/// Bytes of the step buffer.
const STEP_BYTES: u64 = 64 << 10;

/// One operand of a recorded call, resolved to memory.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) access: Access,
}

/// A recorded call.
pub(crate) struct RecordedCall {
    pub(crate) kernel: &'static dyn Kernel,
    pub(crate) views: Vec<View>,
    pub(crate) params: Vec<u32>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) plan: Plan,
}

/// An array whose words are set from the host before a submit. See [`Recording::set`].
#[derive(Clone)]
pub struct Dynamic {
    array: Array,
    start: usize,
    len: usize,
}

impl Dynamic {
    /// The array to give to kernel calls.
    pub fn array(&self) -> &Array {
        &self.array
    }
}

/// Collects kernel calls. See the module's head.
pub struct Recorder {
    device: Device,
    calls: Vec<RecordedCall>,
    free: Arc<FreeList>,
    step: Option<Arc<Buffer>>,
    step_words: Vec<u32>,
    readback: Option<Array>,
    corrections: Option<Arc<dyn Corrections>>,
}

impl Recorder {
    /// An empty recorder on `device`.
    pub fn new(device: &Device) -> Self {
        Recorder {
            device: device.clone(),
            calls: Vec::new(),
            free: Arc::new(Mutex::new(Vec::new())),
            step: None,
            step_words: Vec::new(),
            readback: None,
            corrections: None,
        }
    }

    /// The device that will run this.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Linear layers recorded from now on get these on top of their weights.
    pub fn correct(&mut self, corrections: Option<Arc<dyn Corrections>>) {
        self.corrections = corrections;
    }

    /// What the layer of `weight` gets on top.
    pub(crate) fn corrections(&self, weight: &Weight) -> Result<Vec<LowRank>> {
        match &self.corrections {
            Some(all) => all.of(&self.device, weight),
            None => Ok(Vec::new()),
        }
    }

    /// Calls recorded so far.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// What the calls recorded so far run.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.calls.iter().map(|c| &c.plan)
    }

    /// True before the first call.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// An intermediate array. Its memory is used again by later intermediates once every handle to it is dropped.
    ///
    /// # Errors
    /// `Device` if memory runs out, `InvalidInput` for a shape that cuts blocks.
    pub fn temp(&mut self, dtype: DType, shape: &[usize]) -> Result<Array> {
        let need = crate::array::bytes_of(dtype, shape)?;
        let reused = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            // The tightest fit that does not waste more than half.
            let fit = free
                .iter()
                .enumerate()
                .filter(|(_, b)| b.bytes >= need && b.bytes / 2 <= need.max(SLOT))
                .min_by_key(|(_, b)| b.bytes)
                .map(|(i, _)| i);
            fit.map(|i| free.swap_remove(i))
        };
        let buffer = match reused {
            Some(buffer) => buffer,
            None => self.device.buffer(need, Holder::Activations)?,
        };
        Array::new(buffer, Some(Arc::downgrade(&self.free)), dtype, shape, 0)
    }

    /// A section of `len` words of the step buffer, 0 until [`Recording::set`] fills it.
    ///
    /// # Errors
    /// `Limit` if the sections together exceed 64 KiB.
    pub fn dynamic(&mut self, len: usize) -> Result<Dynamic> {
        let start = self.step_words.len();
        let slot_words = (SLOT / 4) as usize;
        let end = start + len.max(1).next_multiple_of(slot_words);
        if end as u64 * 4 > STEP_BYTES {
            return Err(Error::Limit {
                what: "bytes of a recording's dynamic arrays",
                max: STEP_BYTES,
                got: end as u64 * 4,
            });
        }
        let buffer = match &self.step {
            Some(buffer) => Arc::clone(buffer),
            None => Arc::clone(
                self.step
                    .insert(self.device.buffer(STEP_BYTES, Holder::Params)?),
            ),
        };
        self.step_words.resize(end, 0);
        let array = Array::new(buffer, None, DType::U32, &[len], start as u64 * 4)?;
        Ok(Dynamic { array, start, len })
    }

    /// Records a call of `kernel` on `operands` with its uniform parameters.
    ///
    /// # Errors
    /// Whatever the kernel's plan finds wrong; `InvalidInput` if a written operand shares memory with another.
    pub fn call(
        &mut self,
        kernel: &'static dyn Kernel,
        operands: &[&Array],
        params: &impl bytemuck::Pod,
    ) -> Result<()> {
        self.call_words(kernel, operands, words(params))
    }

    /// [`Recorder::call`] with the parameters as words.
    ///
    /// # Errors
    /// As [`Recorder::call`].
    pub fn call_words(
        &mut self,
        kernel: &'static dyn Kernel,
        operands: &[&Array],
        params: Vec<u32>,
    ) -> Result<()> {
        let views: Vec<View> = operands
            .iter()
            .map(|a| View {
                dtype: a.dtype,
                shape: a.shape.clone(),
            })
            .collect();
        check_operands(kernel, &views)?;
        let caps = self.device.caps();
        let plan = kernel.plan(
            &Call {
                operands: &views,
                params: &params,
            },
            caps,
        )?;
        let bindings: Vec<Binding> = operands
            .iter()
            .zip(kernel.operands())
            .map(|(a, o)| Binding {
                buffer: Arc::clone(&a.lease.buffer),
                offset: a.offset,
                size: a.nbytes,
                access: o.access,
            })
            .collect();
        for (i, b) in bindings.iter().enumerate() {
            if b.size > caps.max_binding {
                return Err(Error::Limit {
                    what: "bytes of one operand (shard it by rows)",
                    max: caps.max_binding,
                    got: b.size,
                });
            }
            let clash = bindings.iter().enumerate().any(|(j, c)| {
                i != j && b.access != Access::Read && Arc::ptr_eq(&b.buffer, &c.buffer)
            });
            if clash {
                return Err(Error::invalid(format!(
                    "{}: operand `{}` is written and shares memory with another operand",
                    kernel.name(),
                    kernel.operands()[i].name
                )));
            }
        }
        self.calls.push(RecordedCall {
            kernel,
            views,
            params,
            bindings,
            plan,
        });
        Ok(())
    }

    /// Asks that every submit reads this array back; see [`Submission::wait`].
    pub fn read_back(&mut self, array: &Array) {
        self.readback = Some(array.clone());
    }

    /// Ends the recording: pipelines and bind groups are made, parameters uploaded.
    ///
    /// # Errors
    /// `Device` if the driver refuses a pipeline or memory runs out.
    pub fn finish(self) -> Result<Recording> {
        let Recorder {
            device,
            calls,
            step,
            step_words,
            readback,
            ..
        } = self;
        #[cfg(feature = "gpu")]
        let gpu = match device.kind() {
            DeviceKind::Gpu(gpu) => Some(gpu.prepare(&device, &calls, readback.as_ref())?),
            DeviceKind::Cpu(_) => None,
        };
        Ok(Recording {
            device,
            calls,
            step,
            step_words,
            dirty: true,
            readback,
            #[cfg(feature = "gpu")]
            gpu,
        })
    }
}

/// Recorded calls, ready to be submitted again and again.
pub struct Recording {
    device: Device,
    calls: Vec<RecordedCall>,
    step: Option<Arc<Buffer>>,
    step_words: Vec<u32>,
    dirty: bool,
    readback: Option<Array>,
    #[cfg(feature = "gpu")]
    gpu: Option<crate::device::gpu::Prepared>,
}

/// What a call moves and computes, at least; see [`Kernel::work`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes read and written.
    pub bytes: u64,
    /// Floating-point operations of its products.
    pub flops: u64,
}

/// What one submit of a recording costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Kernel calls.
    pub dispatches: u64,
    /// Compute passes (0 on the CPU).
    pub passes: u64,
    /// Queue submits (0 on the CPU).
    pub submits: u64,
    /// Bytes read back.
    pub readback_bytes: u64,
}

impl Recording {
    /// Sets the words of a dynamic array for the submits that follow. Shorter input leaves the rest as it was.
    ///
    /// # Errors
    /// `InvalidInput` if there are more words than the array has.
    pub fn set(&mut self, dynamic: &Dynamic, words: &[u32]) -> Result<()> {
        if words.len() > dynamic.len {
            return Err(Error::invalid(format!(
                "{} words for a dynamic array of {}",
                words.len(),
                dynamic.len
            )));
        }
        let section = &mut self.step_words[dynamic.start..dynamic.start + words.len()];
        if section != words {
            section.copy_from_slice(words);
            self.dirty = true;
        }
        Ok(())
    }

    /// Runs the calls in order. On a GPU this only queues them; on the CPU they are done on return.
    ///
    /// # Errors
    /// `Device` if the device is lost.
    pub fn submit(&mut self) -> Result<Submission> {
        self.write_step()?;
        match self.device.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => {
                let prepared = self
                    .gpu
                    .as_ref()
                    .ok_or_else(|| Error::invalid("recording without pipelines"))?;
                Ok(Submission(SubmissionKind::Gpu(
                    gpu.submit(&self.device, prepared)?,
                )))
            }
            DeviceKind::Cpu(cpu) => {
                for call in &self.calls {
                    crate::cpu::execute(
                        cpu,
                        &self.device.caps().tuning,
                        call.kernel,
                        &call.views,
                        &call.params,
                        &call.bindings,
                    )?;
                }
                let bytes = match &self.readback {
                    Some(array) => self.device.read_host(array)?,
                    None => Vec::new(),
                };
                Ok(Submission(SubmissionKind::Done(bytes)))
            }
        }
    }

    /// Brings the words of the dynamic arrays to the device, if they changed.
    fn write_step(&mut self) -> Result<()> {
        if self.dirty
            && let Some(step) = &self.step
        {
            self.device
                .write_raw(step, 0, bytemuck::cast_slice(&self.step_words))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// What each submit costs.
    pub fn cost(&self) -> Cost {
        let gpu = u64::from(self.device.is_gpu());
        Cost {
            dispatches: self.calls.len() as u64,
            passes: gpu,
            submits: gpu,
            readback_bytes: self.readback.as_ref().map_or(0, Array::nbytes),
        }
    }

    /// The calls as text, one per line: kernel, variant, operands, workgroups. Equal recordings print the same.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for call in &self.calls {
            let _ = write!(text, "{}/{}", call.kernel.name(), call.plan.variant);
            for (operand, view) in call.kernel.operands().iter().zip(&call.views) {
                let _ = write!(text, " {}:{}{:?}", operand.name, view.dtype, view.shape);
            }
            let [x, y, z] = call.plan.grid;
            let _ = writeln!(text, " @{x}x{y}x{z}");
        }
        text
    }
}

enum SubmissionKind {
    Done(Vec<u8>),
    #[cfg(feature = "gpu")]
    Gpu(crate::device::gpu::Pending),
}

/// A submit under way.
pub struct Submission(SubmissionKind);

impl Submission {
    /// Waits for the submit and gives the bytes of the array named by [`Recorder::read_back`] (none: empty).
    ///
    /// # Errors
    /// `Device` if the device was lost.
    pub async fn wait(self) -> Result<Vec<u8>> {
        match self.0 {
            SubmissionKind::Done(bytes) => Ok(bytes),
            #[cfg(feature = "gpu")]
            SubmissionKind::Gpu(pending) => pending.wait().await,
        }
    }
}
