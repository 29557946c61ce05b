//! A device: a GPU over wgpu, or the CPU.

#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod rung;
#[cfg(not(target_arch = "wasm32"))]
mod tuned;

#[cfg(feature = "gpu")]
pub use gpu::{AdapterReport, GpuOptions, adapters};
pub use rung::Rung;

#[cfg(feature = "gpu")]
use crate::buffer::GpuMemory;
use crate::buffer::{Buffer, Pool, Storage};
use crate::cpu::{Cpu, CpuOptions, Isa};
use crate::kernel::Caps;
#[cfg(not(target_arch = "wasm32"))]
use crate::kernel::{Kernel, Plan};
use crate::memory::{Holder, Ledger, MemoryReport};
use crate::tune::Tuning;
use crate::{Array, Error, Result};
use firelight_tensor::DType;
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) enum DeviceKind {
    #[cfg(feature = "gpu")]
    Gpu(gpu::Gpu),
    Cpu(Cpu),
}

struct Inner {
    kind: Arc<DeviceKind>,
    caps: Caps,
    rung: Rung,
    name: String,
    cache: DType,
    ledger: Arc<Ledger>,
    pool: Arc<Pool>,
}

impl Inner {
    /// The same device, for other settings.
    fn again(&self) -> Inner {
        Inner {
            kind: Arc::clone(&self.kind),
            caps: self.caps.clone(),
            rung: self.rung,
            name: self.name.clone(),
            cache: self.cache,
            ledger: Arc::clone(&self.ledger),
            pool: Arc::clone(&self.pool),
        }
    }
}

/// A place where kernels run. Cloning shares it.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({}, {})", self.0.rung, self.0.name)
    }
}

impl Device {
    /// The CPU.
    ///
    /// # Errors
    /// `Unsupported` if the asked SIMD level is not there.
    pub fn cpu(options: &CpuOptions) -> Result<Self> {
        let cpu = Cpu::new(options)?;
        let rung = match (cpu.isa, cpu.pool.threads()) {
            (isa, _) if isa == Isa::SCALAR => Rung::CpuScalar,
            (_, 1) => Rung::CpuSimd,
            _ => Rung::CpuThreads,
        };
        let name = format!("CPU, {}, {} threads", cpu.isa.name(), cpu.pool.threads());
        Ok(Self::assemble(
            DeviceKind::Cpu(cpu),
            CPU_CAPS,
            rung,
            name,
            Arc::default(),
        ))
    }

    fn assemble(
        kind: DeviceKind,
        caps: Caps,
        rung: Rung,
        name: String,
        ledger: Arc<Ledger>,
    ) -> Self {
        let pool = Arc::new(Pool::new(&ledger));
        let cache = match rung.is_gpu() && caps.f16 {
            true => DType::F16,
            false => DType::F32,
        };
        Device(Arc::new(Inner {
            kind: Arc::new(kind),
            caps,
            rung,
            name,
            cache,
            ledger,
            pool,
        }))
    }

    /// A GPU: the adapter and rung that `options` ask for.
    ///
    /// # Errors
    /// `Device` if there is no such adapter or it gives no device.
    #[cfg(feature = "gpu")]
    pub async fn gpu(options: &GpuOptions) -> Result<Self> {
        let ledger = Arc::<Ledger>::default();
        let (gpu, caps, rung, name) = gpu::Gpu::open(options, &ledger).await?;
        Ok(Self::assemble(
            DeviceKind::Gpu(gpu),
            caps,
            rung,
            name,
            ledger,
        ))
    }

    /// The application's own wgpu device and queue: arrays and kernels join what else it does there. The features it
    /// was created with decide the rung.
    #[cfg(feature = "gpu")]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let ledger = Arc::<Ledger>::default();
        let (gpu, caps, rung, name) = gpu::Gpu::adopt(device, queue, &ledger);
        Self::assemble(DeviceKind::Gpu(gpu), caps, rung, name, ledger)
    }

    pub(crate) fn kind(&self) -> &DeviceKind {
        &self.0.kind
    }

    /// True for a GPU.
    pub fn is_gpu(&self) -> bool {
        self.0.rung.is_gpu()
    }

    /// The step of the ladder this device stands on.
    pub fn rung(&self) -> Rung {
        self.0.rung
    }

    /// The adapter's or processor's name, for people.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What plans may use.
    pub fn caps(&self) -> &Caps {
        &self.0.caps
    }

    /// The CPU's threads and SIMD level, on a CPU device.
    pub fn as_cpu(&self) -> Option<&Cpu> {
        match self.kind() {
            DeviceKind::Cpu(cpu) => Some(cpu),
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(_) => None,
        }
    }

    /// The element type key/value caches should have here: f16 where shaders have it, else f32, unless
    /// [`Device::keep_caches_in`] says otherwise.
    pub fn cache_dtype(&self) -> DType {
        self.0.cache
    }

    /// True if f16 is turned into f32 by an instruction.
    pub fn reads_f16(&self) -> bool {
        self.as_cpu()
            .map_or(self.0.caps.f16, |cpu| cpu.isa.widens_f16())
    }

    /// This device with key/value caches of another element type, f32, f16 or q8_0 (heads of a multiple of 64 elements): half or about a
    /// quarter of the memory to hold and to read in long contexts. Arrays belong to both.
    ///
    /// # Errors
    /// `Unsupported` for another type, or for f16 on a GPU whose shaders have none.
    pub fn keep_caches_in(&self, dtype: DType) -> Result<Self> {
        let known = matches!(dtype, DType::F32 | DType::F16 | DType::Q8_0);
        if !known || (dtype == DType::F16 && self.is_gpu() && !self.0.caps.f16) {
            return Err(Error::Unsupported(format!(
                "key/value caches in {dtype} on {}; f32 and q8_0 are there always, f16 on the CPU and where shaders have it",
                self.name()
            )));
        }
        let mut inner = self.0.again();
        inner.cache = dtype;
        Ok(Device(Arc::new(inner)))
    }

    /// Who holds how much memory here, and how much has been created.
    pub fn memory(&self) -> MemoryReport {
        self.0.ledger.report()
    }

    /// Frees every pooled buffer that nobody uses.
    pub fn trim(&self) {
        self.0.pool.trim();
        #[cfg(feature = "gpu")]
        if let DeviceKind::Gpu(gpu) = self.kind() {
            gpu.trim();
        }
    }

    /// Compiles what these plans need, all at once, so that no call waits for its own. Nothing on a CPU.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn compile(&self, plans: &[(&dyn Kernel, &Plan)]) -> Result<()> {
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.compile_ahead(plans),
            DeviceKind::Cpu(_) => {
                let _ = plans;
                Ok(())
            }
        }
    }

    /// Why the device is no longer usable, if it was lost.
    pub fn lost(&self) -> Option<String> {
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.lost(),
            DeviceKind::Cpu(_) => None,
        }
    }

    /// Makes a GPU device unusable, as a driver reset would: for tests of what happens then. Nothing on a CPU.
    pub fn simulate_loss(&self) {
        #[cfg(feature = "gpu")]
        if let DeviceKind::Gpu(gpu) = self.kind() {
            gpu.destroy();
        }
    }

    pub(crate) fn buffer(&self, bytes: u64, holder: Holder) -> Result<Arc<Buffer>> {
        let pooled = holder == Holder::Activations || holder == Holder::Params;
        let size = if pooled {
            Pool::size_class(bytes)
        } else {
            bytes.max(4).next_multiple_of(16)
        };
        let pool = pooled.then(|| Arc::clone(&self.0.pool));
        let storage = match pooled.then(|| self.0.pool.take(size)).flatten() {
            Some(storage) => storage,
            None => self.allocate(size, holder)?,
        };
        Ok(Arc::new(Buffer::new(
            storage,
            size,
            holder,
            &self.0.ledger,
            pool,
        )))
    }

    fn allocate(&self, size: u64, holder: Holder) -> Result<Storage> {
        use std::sync::atomic::Ordering;
        let storage = match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => Storage::Gpu(GpuMemory::new(gpu.create_buffer(size, holder)?)),
            DeviceKind::Cpu(cpu) => {
                let size = usize::try_from(size).map_err(|_| Error::Limit {
                    what: "bytes of a buffer",
                    max: usize::MAX as u64,
                    got: size,
                })?;
                Storage::Cpu(RwLock::new(cpu.arena.zeroed(size, holder)?))
            }
        };
        self.0
            .ledger
            .buffers_created
            .fetch_add(1, Ordering::Relaxed);
        Ok(storage)
    }

    /// A zeroed array.
    ///
    /// # Errors
    /// `Device` if memory runs out, `InvalidInput` if the last dimension cuts quantised blocks.
    pub fn array(&self, dtype: DType, shape: &[usize], holder: Holder) -> Result<Array> {
        let bytes = crate::array::bytes_of(dtype, shape)?;
        // Kernels read quantised blocks in 32-bit words: the last word may reach past the last block.
        let slack = if dtype.is_quantized() || dtype.block_bytes() < 4 {
            4
        } else {
            0
        };
        Array::new(self.buffer(bytes + slack, holder)?, None, dtype, shape, 0)
    }

    /// An array holding `bytes` (little-endian elements, or GGUF blocks).
    ///
    /// # Errors
    /// As [`Device::array`]; `InvalidInput` if the byte count does not fit the shape.
    pub fn upload(
        &self,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
        holder: Holder,
    ) -> Result<Array> {
        let array = self.array(dtype, shape, holder)?;
        self.write(&array, bytes)?;
        Ok(array)
    }

    /// An f32 array of these values for the caller's own use.
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn upload_f32(&self, values: &[f32], shape: &[usize]) -> Result<Array> {
        self.upload(
            DType::F32,
            shape,
            bytemuck::cast_slice(values),
            Holder::User,
        )
    }

    /// Overwrites an array's elements.
    ///
    /// # Errors
    /// `InvalidInput` if the byte count does not fit, `Device` if the device is lost.
    pub fn write(&self, array: &Array, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != array.nbytes {
            return Err(Error::invalid(format!(
                "{} bytes for {array:?}, which has {}",
                bytes.len(),
                array.nbytes
            )));
        }
        self.write_raw(&array.lease.buffer, array.offset, bytes)
    }

    pub(crate) fn write_raw(&self, buffer: &Arc<Buffer>, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.write(buffer, offset, bytes),
            DeviceKind::Cpu(_) => {
                let mut host = buffer
                    .cpu_mut()
                    .ok_or_else(|| Error::invalid("an array of another device"))?;
                let start = offset as usize;
                host.get_mut(start..start + bytes.len())
                    .ok_or_else(|| Error::invalid("write beyond the buffer"))?
                    .copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Lets `fill` write an array's bytes in place where they are in host memory, or through a buffer that is then
    /// uploaded: how weights are loaded without a second copy on the CPU.
    ///
    /// # Errors
    /// Whatever `fill` returns, or as [`Device::write`].
    pub fn fill<E: From<Error>>(
        &self,
        array: &Array,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.fill_part(array, 0, array.nbytes, fill)
    }

    /// [`Device::fill`] for the bytes `start..start + len` of an array, so that a large one needs little host memory. On a GPU
    /// `start` is a multiple of 4.
    ///
    /// # Errors
    /// As [`Device::fill`]; `InvalidInput` if the range leaves the array.
    pub fn fill_part<E: From<Error>>(
        &self,
        array: &Array,
        start: u64,
        len: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if start > array.nbytes || len > array.nbytes - start {
            let end = start.saturating_add(len);
            return Err(Error::invalid(format!(
                "fill of bytes {start}..{end} of {array:?}, which has {}",
                array.nbytes
            ))
            .into());
        }
        let first = array.offset + start;
        if let Some(mut host) = array.lease.buffer.cpu_mut() {
            return match host.get_mut(first as usize..(first + len) as usize) {
                Some(bytes) => fill(bytes),
                None => Err(Error::invalid("fill beyond the buffer").into()),
            };
        }
        let mut bytes = vec![0u8; len as usize];
        fill(&mut bytes)?;
        Ok(self.write_raw(&array.lease.buffer, first, &bytes)?)
    }

    /// Waits until everything written and submitted so far is done. In browsers this is also where a failed allocation is heard of.
    ///
    /// # Errors
    /// `Device` if the device is lost or refused something.
    pub async fn flushed(&self) -> Result<()> {
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.flushed(self).await,
            DeviceKind::Cpu(_) => Ok(()),
        }
    }

    pub(crate) fn read_host(&self, array: &Array) -> Result<Vec<u8>> {
        let lock = array
            .lease
            .buffer
            .cpu()
            .ok_or_else(|| Error::invalid("an array of another device"))?;
        let host = lock.read().unwrap_or_else(PoisonError::into_inner);
        let range = array.offset as usize..(array.offset + array.nbytes) as usize;
        host.get(range)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Error::invalid("read beyond the buffer"))
    }

    /// The bytes of an array, after everything submitted before.
    ///
    /// # Errors
    /// `Device` if the device is lost.
    pub async fn read(&self, array: &Array) -> Result<Vec<u8>> {
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.read(self, array).await,
            DeviceKind::Cpu(_) => self.read_host(array),
        }
    }

    /// The elements of an f32 array.
    ///
    /// # Errors
    /// `InvalidInput` if it is not f32, `Device` if the device is lost.
    pub async fn read_f32(&self, array: &Array) -> Result<Vec<f32>> {
        if array.dtype != DType::F32 {
            return Err(Error::invalid(format!("read_f32 of {array:?}")));
        }
        Ok(bytemuck::pod_collect_to_vec(&self.read(array).await?))
    }

    /// True for the same device: arrays of one can be used on the other.
    pub fn is(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Copies the first `bytes` of one array into another of this device.
    ///
    /// # Errors
    /// `InvalidInput` if either is too small, `Device` if the device is lost.
    pub fn copy(&self, from: &Array, to: &Array, bytes: u64) -> Result<()> {
        self.copy_all(&[Span {
            from,
            from_byte: 0,
            to,
            to_byte: 0,
            bytes,
        }])
    }

    /// Copies bytes between arrays of this device, in order and after everything submitted before; on a GPU in one submit.
    ///
    /// # Errors
    /// `InvalidInput` if a span leaves its arrays or is not in whole words, `Device` if the device is lost.
    pub fn copy_all(&self, spans: &[Span<'_>]) -> Result<()> {
        for s in spans {
            let fits = |at: u64, array: &Array| {
                at.checked_add(s.bytes)
                    .is_some_and(|end| end <= array.nbytes)
            };
            let words = s.from_byte.is_multiple_of(4) && s.to_byte.is_multiple_of(4);
            if !fits(s.from_byte, s.from) || !fits(s.to_byte, s.to) || !words {
                return Err(Error::invalid(format!(
                    "copy {} bytes of {:?} from byte {} into {:?} from byte {}",
                    s.bytes, s.from, s.from_byte, s.to, s.to_byte
                )));
            }
        }
        match self.kind() {
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu(gpu) => gpu.copy(spans),
            DeviceKind::Cpu(_) => {
                for s in spans {
                    let part = Array {
                        offset: s.from.offset + s.from_byte,
                        nbytes: s.bytes,
                        ..s.from.clone()
                    };
                    let bytes = self.read_host(&part)?;
                    self.write_raw(&s.to.lease.buffer, s.to.offset + s.to_byte, &bytes)?;
                }
                Ok(())
            }
        }
    }

    /// An application's wgpu buffer as an array, without a copy. It needs the usages `STORAGE | COPY_SRC | COPY_DST`.
    ///
    /// # Errors
    /// `InvalidInput` on a CPU device, if the buffer is too small or lacks a usage.
    #[cfg(feature = "gpu")]
    pub fn array_from_wgpu(
        &self,
        buffer: wgpu::Buffer,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Array> {
        let need = crate::array::bytes_of(dtype, shape)?;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        if !self.is_gpu() {
            return Err(Error::invalid("a wgpu buffer on the CPU device"));
        }
        if buffer.size() < need || !buffer.usage().contains(usage) {
            return Err(Error::invalid(format!(
                "a wgpu buffer of {} bytes with {:?} for {dtype}{shape:?}: needs {need} bytes and {usage:?}",
                buffer.size(),
                buffer.usage()
            )));
        }
        Array::new(
            Arc::new(Buffer::foreign(buffer, &self.0.ledger)),
            None,
            dtype,
            shape,
            0,
        )
    }
}

/// A part of an array to be copied into another; see [`Device::copy_all`].
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The source.
    pub from: &'a Array,
    /// Its first byte, a multiple of 4.
    pub from_byte: u64,
    /// The target, another array.
    pub to: &'a Array,
    /// Its first byte, a multiple of 4.
    pub to_byte: u64,
    /// Bytes to copy.
    pub bytes: u64,
}

/// The CPU runs GPU plans' checks too, without their limits.
const CPU_CAPS: Caps = Caps {
    f16: false,
    subgroups: false,
    max_groups: u32::MAX,
    max_binding: u64::MAX,
    max_shared: u32::MAX,
    tuning: Tuning::NONE,
};
