//! The engine: which device runs and why, loaded models, and stepping down the ladder.

use crate::checkpoint::Checkpoint;
use crate::models::CausalLm;
use crate::source::CancelToken;
use crate::stream::{self, Arrivals, Here};
use crate::text_side::TextSide;
#[cfg(not(target_arch = "wasm32"))]
use crate::tuning::{self, TuningUse};
use crate::{Dtypes, Error, Result};
use firelight_kernels::harness::{SelfTest, self_test};
use firelight_kernels::{
    AdapterReport, CpuOptions, DType, Device, GpuOptions, Isa, Rung, adapters,
};
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which kind of device is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A real GPU if there is one that answers right, else the CPU.
    #[default]
    Auto,
    /// A GPU, also one that software imitates; no CPU.
    Gpu,
    /// The CPU.
    Cpu,
}

/// How an [`Engine`] chooses its device.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Kind of device.
    pub device: DeviceChoice,
    /// Index of the adapter in [`adapters`].
    pub adapter: Option<usize>,
    /// Exactly this rung of the ladder.
    pub rung: Option<Rung>,
    /// CPU threads; `None`: one per core.
    pub threads: Option<usize>,
    /// CPU SIMD level; `None`: the best.
    pub isa: Option<Isa>,
    /// Keep f32 activations on the CPU.
    pub exact: bool,
    /// Round activations to 8 bits on the CPU: faster, less exact.
    pub fast: bool,
    /// Other types for a model's matrices than those of its file, converted while it is loaded.
    pub dtypes: Dtypes,
    /// Type of the key/value caches, f32, f16 or q8_0; `None`: what suits the device ([`Device::cache_dtype`]); on the CPU f16 for
    /// models with quantised matrices where it is read by an instruction, unless `exact`.
    pub kv: Option<DType>,
    /// Prove the device on every kernel's self-test before it is used. Off only where start-up time is being measured.
    pub self_test: bool,
    /// A folder for what is better not found out anew at every start: pipelines that a GPU's driver compiled, and what
    /// `firelight tune` measured. `None`: nothing is kept.
    pub cache_dir: Option<std::path::PathBuf>,
    /// Use what was measured.
    pub tuned: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            device: DeviceChoice::Auto,
            adapter: None,
            rung: None,
            threads: None,
            isa: None,
            exact: false,
            fast: false,
            dtypes: Dtypes::default(),
            kv: None,
            self_test: true,
            cache_dir: None,
            tuned: true,
        }
    }
}

/// One thing that was tried, in order.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Adapter or processor and rung.
    pub what: String,
    /// The rung.
    pub rung: Rung,
    /// Why it is not used; `None`: it is.
    pub refused: Option<String>,
}

/// Which device runs, and how it came to that.
#[derive(Clone, Debug)]
pub struct Report {
    /// The device in use.
    pub device: String,
    /// Its rung.
    pub rung: Rung,
    /// Everything tried, in order; the last one runs.
    pub attempts: Vec<Attempt>,
    /// Adapters found (none are looked for if the CPU was asked for).
    pub adapters: Vec<AdapterReport>,
    /// The self-test of the device in use, if it ran.
    pub self_test: Option<SelfTest>,
    /// Whether numbers measured on the device are in use.
    #[cfg(not(target_arch = "wasm32"))]
    pub tuning: TuningUse,
}

struct Current {
    device: Device,
    report: Report,
}

struct Inner {
    options: EngineOptions,
    current: Mutex<Current>,
}

/// A device and what runs on it. Cloning shares it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl Engine {
    /// Chooses a device as `options` say, from the top of the ladder down.
    ///
    /// # Errors
    /// `Kernels` if nothing that was asked for works; the message names every attempt.
    pub async fn new(options: EngineOptions) -> Result<Self> {
        let mut attempts = Vec::new();
        let current = choose(&options, &mut attempts).await?;
        Ok(Engine(Arc::new(Inner {
            options,
            current: Mutex::new(current),
        })))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The device in use.
    pub fn device(&self) -> Device {
        self.current().device.clone()
    }

    /// Which device runs, and why.
    pub fn report(&self) -> Report {
        self.current().report.clone()
    }

    /// The options it was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.0.options
    }

    /// Loads a model's files onto the device. `progress` gets bytes loaded and bytes in all.
    ///
    /// # Errors
    /// What is wrong with the files, or `Device` if they do not fit.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load(
        &self,
        path: impl AsRef<Path>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedModel> {
        let checkpoint = Checkpoint::open(path)?.with_dtypes(self.options().dtypes)?;
        self.load_checkpoint(Arc::new(checkpoint), progress).await
    }

    /// Loads an opened checkpoint.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub async fn load_checkpoint(
        &self,
        checkpoint: Arc<Checkpoint>,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedModel> {
        self.load_arriving(checkpoint, &Here, &CancelToken::new(), progress)
            .await
    }

    /// Loads an opened checkpoint whose files may still be arriving.
    ///
    /// # Errors
    /// As [`Engine::load`]; `Cancelled`; what `arrivals` fails with.
    pub async fn load_arriving(
        &self,
        checkpoint: Arc<Checkpoint>,
        arrivals: &dyn Arrivals,
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<LoadedModel> {
        let text = Arc::new(TextSide::open(&checkpoint)?);
        let (device, model) = self.place(&checkpoint, arrivals, cancel, progress).await?;
        Ok(LoadedModel {
            checkpoint,
            text,
            device,
            model,
        })
    }

    /// Loads the same files again, on the device in use now.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub async fn reload(&self, model: &LoadedModel) -> Result<LoadedModel> {
        let (device, fresh) = self
            .place(
                &model.checkpoint,
                &Here,
                &CancelToken::new(),
                &mut |_, _| (),
            )
            .await?;
        Ok(LoadedModel {
            device,
            model: fresh,
            ..model.clone()
        })
    }

    /// Puts a checkpoint's model on the first device, from the one in use down, that takes it.
    async fn place(
        &self,
        checkpoint: &Checkpoint,
        arrivals: &dyn Arrivals,
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(u64, u64) + '_),
    ) -> Result<(Device, Arc<dyn CausalLm>)> {
        loop {
            let device = self.device();
            match stream::load(checkpoint, &device, arrivals, cancel, progress).await {
                Ok(model) => {
                    checkpoint.merge().check()?;
                    return Ok((self.with_caches_of(checkpoint, device)?, Arc::from(model)));
                }
                Err(e) if e.is_device_fault() => self.step_down(&e).await?,
                Err(e) => return Err(e),
            }
        }
    }

    /// The device with the caches that suit a model: beside matrices of few bits nothing is lost by f16, unless all is to be exact.
    pub(crate) fn with_caches_of(&self, checkpoint: &Checkpoint, device: Device) -> Result<Device> {
        let options = &self.0.options;
        let free = options.kv.is_none() && !options.exact && !device.is_gpu();
        if free && device.reads_f16() && checkpoint.is_quantized() {
            return Ok(device.keep_caches_in(DType::F16)?);
        }
        Ok(device)
    }

    /// Runs `load` on the device; where the device fails, on the next rung down. Gives the device it ran on.
    pub(crate) async fn on_a_rung<T>(
        &self,
        mut load: impl FnMut(&Device) -> Result<T>,
    ) -> Result<(Device, T)> {
        loop {
            let device = self.device();
            match load(&device) {
                Ok(loaded) => return Ok((device, loaded)),
                Err(e) if e.is_device_fault() => self.step_down(&e).await?,
                Err(e) => return Err(e),
            }
        }
    }

    /// Moves to the next rung down after a device fault. A rung or kind of device that was asked for is not left: then the
    /// fault is the answer.
    ///
    /// # Errors
    /// The fault, if there is nowhere to go.
    pub async fn step_down(&self, fault: &Error) -> Result<()> {
        let (mut report, device) = {
            let current = self.current();
            (current.report.clone(), current.device.clone())
        };
        let give_up = || {
            Err(Error::Kernels(firelight_kernels::Error::device(
                firelight_kernels::DeviceFault::Lost,
                format!("{fault}; no lower rung is allowed by the options given"),
            )))
        };
        if let Some(last) = report.attempts.last_mut() {
            last.refused = Some(fault.to_string());
        }
        let options = &self.0.options;
        if options.rung.is_some() {
            return give_up();
        }
        let mut rung = device.rung();
        let mut attempts = report.attempts;
        let chosen = loop {
            let Some(next) = rung.next() else {
                return give_up();
            };
            if !next.is_gpu() && options.device == DeviceChoice::Gpu {
                return give_up();
            }
            let fewer = EngineOptions {
                rung: Some(next),
                ..options.clone()
            };
            match choose(&fewer, &mut attempts).await {
                Ok(current) => break current,
                Err(_) => rung = next,
            }
        };
        *self.current() = chosen;
        Ok(())
    }

    /// Drops a model and gives its memory back to the system.
    pub fn dispose(&self, model: LoadedModel) {
        let device = model.device.clone();
        drop(model);
        device.trim();
    }
}

/// A model on a device, with its tokenizer and templates. Cloning shares it.
#[derive(Clone)]
pub struct LoadedModel {
    /// Its files.
    pub checkpoint: Arc<Checkpoint>,
    /// Tokenizer, template, end-of-text ids.
    pub text: Arc<TextSide>,
    /// Where it is.
    pub device: Device,
    /// The model.
    pub model: Arc<dyn CausalLm>,
}

async fn prove(options: &EngineOptions, device: &Device) -> Result<Option<SelfTest>, String> {
    if !options.self_test {
        return Ok(None);
    }
    let report = self_test(device).await;
    match report.failure() {
        None => Ok(Some(report)),
        Some(what) => Err(format!("self-test: {what}")),
    }
}

/// A device that answers right.
struct Proven {
    device: Device,
    self_test: Option<SelfTest>,
    #[cfg(not(target_arch = "wasm32"))]
    tuning: TuningUse,
}

/// Proves a device with the numbers measured on it; where it fails with them, without.
#[cfg(not(target_arch = "wasm32"))]
async fn proven(options: &EngineOptions, plain: Device) -> Result<Proven, String> {
    let folder = options.cache_dir.as_deref().filter(|_| options.tuned);
    let (device, tuning) = tuning::apply(folder, plain.clone());
    let proof = prove(options, &device).await;
    let (Err(why), TuningUse::Used { file, .. }) = (&proof, &tuning) else {
        return proof.map(|self_test| Proven {
            device,
            self_test,
            tuning,
        });
    };
    let (file, why) = (file.clone(), why.clone());
    let self_test = prove(options, &plain).await?;
    Ok(Proven {
        device: plain,
        self_test,
        tuning: TuningUse::Ignored { file, why },
    })
}

#[cfg(target_arch = "wasm32")]
async fn proven(options: &EngineOptions, device: Device) -> Result<Proven, String> {
    let self_test = prove(options, &device).await?;
    Ok(Proven { device, self_test })
}

fn with_caches(device: Device, options: &EngineOptions) -> firelight_kernels::Result<Device> {
    match options.kv {
        Some(dtype) => device.keep_caches_in(dtype),
        None => Ok(device),
    }
}

/// Walks the ladder; every attempt is noted.
async fn choose(options: &EngineOptions, attempts: &mut Vec<Attempt>) -> Result<Current> {
    let cpu_only = options.device == DeviceChoice::Cpu || options.rung.is_some_and(|r| !r.is_gpu());
    if options.device == DeviceChoice::Gpu && options.rung.is_some_and(|r| !r.is_gpu()) {
        return Err(Error::invalid("device gpu with a rung of the CPU"));
    }
    if options.device == DeviceChoice::Cpu && options.rung.is_some_and(Rung::is_gpu) {
        return Err(Error::invalid("device cpu with a rung of the GPU"));
    }
    let mut found = Vec::new();
    let mut failure = None;
    if !cpu_only {
        found = adapters().await;
        // Software is slower than our own CPU rung: only when it was asked for.
        let asked = options.device == DeviceChoice::Gpu
            || options.rung.is_some()
            || options.adapter.is_some();
        for adapter in &found {
            if options.adapter.is_some_and(|i| i != adapter.index) {
                continue;
            }
            if adapter.software && !asked {
                attempts.push(Attempt {
                    what: adapter.name.clone(),
                    rung: adapter.best_rung(),
                    refused: Some(
                        "a software adapter; the CPU rung is faster (use --device gpu to insist)"
                            .into(),
                    ),
                });
                continue;
            }
            let rungs = [Rung::GpuF16Subgroups, Rung::GpuF16, Rung::GpuF32];
            for rung in rungs.into_iter().filter(|&r| r >= adapter.best_rung()) {
                if options.rung.is_some_and(|r| r != rung) {
                    continue;
                }
                let gpu = GpuOptions {
                    adapter: Some(adapter.index),
                    rung: Some(rung),
                    pipelines: options.cache_dir.as_ref().map(|d| d.join("pipelines")),
                };
                let mut attempt = Attempt {
                    what: adapter.name.clone(),
                    rung,
                    refused: None,
                };
                let opened = match Device::gpu(&gpu)
                    .await
                    .and_then(|d| with_caches(d, options))
                {
                    Ok(device) => proven(options, device).await,
                    Err(e) => Err(e.to_string()),
                };
                match opened {
                    Ok(proven) => {
                        attempts.push(attempt);
                        return Ok(current(proven, attempts, found));
                    }
                    Err(e) => {
                        attempt.refused = Some(e.clone());
                        attempts.push(attempt);
                        failure = Some(e);
                    }
                }
            }
            if options.rung.is_some_and(|r| r < adapter.best_rung()) {
                let what = format!(
                    "{} has rungs from {} down",
                    adapter.name,
                    adapter.best_rung()
                );
                failure.get_or_insert(what);
            }
        }
        if options.device == DeviceChoice::Gpu || options.rung.is_some() {
            let why = failure.unwrap_or_else(|| match options.adapter {
                Some(i) if !found.is_empty() => {
                    format!("no adapter {i}; there are 0..{}", found.len())
                }
                _ => "no GPU adapter was found; install a Vulkan driver, or run with --device cpu"
                    .to_owned(),
            });
            return Err(Error::Kernels(firelight_kernels::Error::device(
                firelight_kernels::DeviceFault::NoAdapter,
                why,
            )));
        }
    }
    let mut cpu = CpuOptions {
        threads: options.threads,
        isa: options.isa,
        exact: options.exact,
        fast: options.fast,
        reference: false,
    };
    match options.rung {
        Some(Rung::CpuSimd) => cpu.threads = Some(1),
        Some(Rung::CpuScalar) => (cpu.threads, cpu.isa) = (Some(1), Some(Isa::SCALAR)),
        _ => {}
    }
    let device = with_caches(Device::cpu(&cpu)?, options)?;
    let mut attempt = Attempt {
        what: device.name().to_owned(),
        rung: device.rung(),
        refused: None,
    };
    match proven(options, device).await {
        Ok(proven) => {
            attempts.push(attempt);
            Ok(current(proven, attempts, found))
        }
        Err(e) => {
            attempt.refused = Some(e.clone());
            attempts.push(attempt);
            if cpu.isa == Some(Isa::SCALAR) {
                return Err(Error::Unsupported(format!(
                    "this processor computes wrong even without SIMD: {e}"
                )));
            }
            let slower = EngineOptions {
                rung: Some(Rung::CpuScalar),
                device: DeviceChoice::Auto,
                ..options.clone()
            };
            Box::pin(choose(&slower, attempts)).await
        }
    }
}

fn current(proven: Proven, attempts: &[Attempt], adapters: Vec<AdapterReport>) -> Current {
    let Proven {
        device, self_test, ..
    } = proven;
    let report = Report {
        device: device.name().to_owned(),
        rung: device.rung(),
        attempts: attempts.to_vec(),
        adapters,
        self_test,
        #[cfg(not(target_arch = "wasm32"))]
        tuning: proven.tuning,
    };
    Current { device, report }
}
