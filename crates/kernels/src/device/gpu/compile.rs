//! From a plan to a pipeline.
//!
//! Built-in kernels are compiled without wgpu's checks of bounds and loops where that is wgpu's to decide (natively): their
//! WGSL keeps to its operands whatever these and the parameters hold, which `tests/bounds.rs` shows. A kernel of another
//! crate keeps all checks.
#![allow(unsafe_code)]

use super::{Gpu, Layout};
use crate::Result;
use crate::kernel::{Kernel, Plan, is_built_in};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Gpu {
    pub(super) fn pipeline(
        &self,
        kernel: &dyn Kernel,
        plan: &Plan,
        layout: &Layout,
    ) -> Result<wgpu::ComputePipeline> {
        let source = plan.source();
        let trusted = is_built_in(kernel);
        let mut key = format!("{}/{}/{trusted}/", kernel.name(), plan.variant);
        for (name, value) in &plan.constants {
            use std::fmt::Write as _;
            let _ = write!(key, "{name}={value},");
        }
        // The text itself is part of the key: variants of one name may be joined from different parts.
        key.push_str(&source);
        let mut pipelines = self
            .pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let label = format!("{}/{}", kernel.name(), plan.variant);
        let pipeline = self.scoped(
            || format!("compiling {label}"),
            || {
                let module = self.module(&label, source, trusted);
                self.device
                    .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                        label: Some(&label),
                        layout: Some(&layout.pipeline),
                        module: &module,
                        entry_point: Some("main"),
                        compilation_options: wgpu::PipelineCompilationOptions {
                            constants: &plan.constants,
                            zero_initialize_workgroup_memory: false,
                        },
                        cache: None,
                    })
            },
        )?;
        self.ledger
            .pipelines_created
            .fetch_add(1, Ordering::Relaxed);
        pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    fn module(&self, label: &str, source: String, trusted: bool) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        if !trusted {
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
