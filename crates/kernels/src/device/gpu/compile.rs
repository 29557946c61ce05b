//! From plans to pipelines: each text is compiled once, several at a time.
//!
//! Built-in kernels are compiled without wgpu's checks of bounds and loops where that is wgpu's to decide (natively): their
//! WGSL keeps to its operands whatever these and the parameters hold, which `tests/bounds.rs` shows. A kernel of another
//! crate keeps all checks.
#![allow(unsafe_code)]

use super::{Gpu, Layout};
use crate::Result;
use crate::kernel::{Access, Kernel, Plan, is_built_in};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// A pipeline that somebody needs.
struct Wanted<'a> {
    key: String,
    source: String,
    trusted: bool,
    kernel: &'a dyn Kernel,
    plan: &'a Plan,
    layout: Arc<Layout>,
}

impl Gpu {
    /// Makes the pipelines of these plans.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn compile_ahead(&self, plans: &[(&dyn Kernel, &Plan)]) -> Result<()> {
        self.pipelines(plans).map(|_| ())
    }

    /// The pipelines of these plans, in order. What is not there yet is compiled, on as many threads as there are cores.
    pub(super) fn pipelines(
        &self,
        plans: &[(&dyn Kernel, &Plan)],
    ) -> Result<Vec<(wgpu::ComputePipeline, Arc<Layout>)>> {
        let mut wanted = Vec::with_capacity(plans.len());
        for &(kernel, plan) in plans {
            wanted.push(self.want(kernel, plan));
        }
        let missing: Vec<&Wanted<'_>> = {
            let known = self.known();
            let mut seen = HashMap::new();
            for w in wanted.iter().filter(|w| !known.contains_key(&w.key)) {
                seen.entry(w.key.as_str()).or_insert(w);
            }
            seen.into_values().collect()
        };
        self.compile(&missing)?;
        let known = self.known();
        let found = wanted.into_iter().map(|w| {
            let pipeline = known.get(&w.key).cloned();
            let pipeline =
                pipeline.ok_or_else(|| crate::Error::invalid("a pipeline was not made"))?;
            Ok((pipeline, w.layout))
        });
        found.collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, wgpu::ComputePipeline>> {
        self.pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn want<'a>(&self, kernel: &'a dyn Kernel, plan: &'a Plan) -> Wanted<'a> {
        let source = plan.source();
        let trusted = is_built_in(kernel);
        let mut key = format!("{}/{}/{trusted}/", kernel.name(), plan.variant);
        for (name, value) in &plan.constants {
            let _ = write!(key, "{name}={value},");
        }
        // The text itself is part of the key: variants of one name may be joined from different parts.
        key.push_str(&source);
        let operands = kernel.operands().iter();
        let layout = self.layout(&operands.map(|o| o.access == Access::Read).collect());
        Wanted {
            key,
            source,
            trusted,
            kernel,
            plan,
            layout,
        }
    }

    #[cfg(target_arch = "wasm32")]
    fn compile(&self, missing: &[&Wanted<'_>]) -> Result<()> {
        missing.iter().try_for_each(|w| self.compile_one(w))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn compile(&self, missing: &[&Wanted<'_>]) -> Result<()> {
        use std::sync::atomic::AtomicUsize;
        if missing.is_empty() {
            return Ok(());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(w) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.compile_one(w)?;
            }
            Ok(())
        };
        let result = std::thread::scope(|scope| {
            let others: Vec<_> = (1..cores.min(missing.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mut result = work();
            for other in others {
                let theirs = other
                    .join()
                    .unwrap_or_else(|_| Err(crate::Error::invalid("a compiling thread panicked")));
                result = result.and(theirs);
            }
            result
        });
        if let Some(kept) = &self.kept {
            kept.save();
        }
        result
    }

    fn compile_one(&self, wanted: &Wanted<'_>) -> Result<()> {
        let label = format!("{}/{}", wanted.kernel.name(), wanted.plan.variant);
        #[cfg(not(target_arch = "wasm32"))]
        let cache = self.kept.as_ref().map(|k| k.cache());
        #[cfg(target_arch = "wasm32")]
        let cache = None;
        let pipeline = self.scoped(
            || format!("compiling {label}"),
            || {
                let module = self.module(&label, wanted);
                self.device
                    .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                        label: Some(&label),
                        layout: Some(&wanted.layout.pipeline),
                        module: &module,
                        entry_point: Some("main"),
                        compilation_options: wgpu::PipelineCompilationOptions {
                            constants: &wanted.plan.constants,
                            zero_initialize_workgroup_memory: false,
                        },
                        cache,
                    })
            },
        )?;
        self.ledger
            .pipelines_created
            .fetch_add(1, Ordering::Relaxed);
        self.known().insert(wanted.key.clone(), pipeline);
        Ok(())
    }

    fn module(&self, label: &str, wanted: &Wanted<'_>) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(wanted.source.as_str().into()),
        };
        if !wanted.trusted {
            return self.device.create_shader_module(descriptor);
        }
        // Divisions keep theirs: it is one comparison, and none of them is in a loop that matters.
        let checks = wgpu::ShaderRuntimeChecks {
            bounds_checks: false,
            force_loop_bounding: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        };
        // SAFETY: `trusted` is said of the kernels of this crate only. A plan they make accesses no memory but its operands, for any
        // parameters it accepts and any contents, and its loops are counted: `tests/bounds.rs`.
        unsafe { self.device.create_shader_module_trusted(descriptor, checks) }
    }
}
