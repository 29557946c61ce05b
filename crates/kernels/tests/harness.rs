//! Every kernel's cases against its f64 reference: on the CPU at each SIMD level, and on each rung of the GPU.

use firelight_kernels::harness::{check_kernel, run_case, wanted};
use firelight_kernels::{CpuOptions, Device, Isa, KERNELS};

#[test]
fn cpu_answers_like_the_reference_at_every_simd_level() {
    for isa in Isa::available() {
        for (threads, exact, fast) in [(1, true, false), (3, true, false), (2, false, true)] {
            let options = CpuOptions {
                threads: Some(threads),
                isa: Some(isa),
                exact,
                fast,
                ..Default::default()
            };
            let device = Device::cpu(&options).expect("this level is there");
            for &kernel in KERNELS {
                let run = pollster::block_on(check_kernel(&device, kernel));
                let cases = run
                    .unwrap_or_else(|e| panic!("{isa:?}, {threads} threads, exact {exact}: {e}"));
                assert!(cases > 0, "{} has no cases", kernel.name());
            }
        }
    }
}

#[test]
fn the_reference_itself_runs_as_a_device() {
    let options = CpuOptions {
        reference: true,
        ..Default::default()
    };
    let device = Device::cpu(&options).expect("a CPU");
    for &kernel in KERNELS {
        pollster::block_on(check_kernel(&device, kernel)).expect("equal to itself");
    }
}

#[cfg(feature = "gpu")]
#[test]
fn gpu_answers_like_the_reference_on_every_rung() {
    use firelight_kernels::{GpuOptions, Rung, adapters};
    use firelight_testing::{gpu_or_skip, skip};

    let name = "gpu_answers_like_the_reference_on_every_rung";
    let listed = gpu_or_skip(name, || {
        let found = pollster::block_on(adapters());
        if found.is_empty() {
            Err("no GPU adapter")
        } else {
            Ok(found)
        }
    });
    let Some(found) = listed else { return };
    for adapter in &found {
        for rung in [Rung::GpuF16Subgroups, Rung::GpuF16, Rung::GpuF32] {
            if rung < adapter.best_rung() {
                let part = format!("{rung} on {}", adapter.name);
                skip!(name, part, "the adapter lacks the features");
                continue;
            }
            let options = GpuOptions {
                adapter: Some(adapter.index),
                rung: Some(rung),
                ..Default::default()
            };
            let device = pollster::block_on(Device::gpu(&options)).expect("a device");
            for &kernel in KERNELS {
                pollster::block_on(check_kernel(&device, kernel))
                    .unwrap_or_else(|e| panic!("{rung} on {}: {e}", adapter.name));
            }
        }
    }
}

/// The comparison must be able to fail: a case whose expectation is off by a little more than its bound.
#[test]
fn a_wrong_kernel_is_found_out() {
    use firelight_kernels::{Call, Caps, Case, CpuCall, Kernel, Operand, Plan, Result};

    /// RMSNorm whose CPU version forgets eps.
    #[derive(Debug)]
    struct Wrong;
    impl Kernel for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }
        fn formula(&self) -> &'static str {
            "none"
        }
        fn operands(&self) -> &'static [Operand] {
            firelight_kernels::rms_norm::RmsNorm.operands()
        }
        fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
            firelight_kernels::rms_norm::RmsNorm.plan(call, caps)
        }
        fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
            Some(|c| {
                let p: firelight_kernels::rms_norm::Params = c.call.params();
                let (x, w) = (c.read::<f32>(0), c.read::<f32>(1));
                let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
                for (x, y) in x.chunks(p.d as usize).zip(y.chunks_mut(p.d as usize)) {
                    let scale = (x.iter().map(|v| v * v).sum::<f32>() / p.d as f32)
                        .sqrt()
                        .recip();
                    y.iter_mut()
                        .zip(x)
                        .zip(w)
                        .for_each(|((y, x), w)| *y = x * scale * (w + p.offset));
                }
            })
        }
        fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
            firelight_kernels::rms_norm::RmsNorm.reference(call, values);
        }
        fn cases(&self) -> Vec<Case> {
            firelight_kernels::rms_norm::RmsNorm.cases()
        }
    }
    let device = Device::cpu(&CpuOptions::default()).expect("a CPU");
    let error = pollster::block_on(check_kernel(&device, &Wrong)).expect_err("zero rows give NaN");
    assert!(error.to_string().contains("zero rows"), "{error}");
}

/// Guard bands work: a kernel that writes one element too many is told apart.
#[test]
fn a_write_outside_an_operand_is_found_out() {
    let device = Device::cpu(&CpuOptions::default()).expect("a CPU");
    let kernel = KERNELS
        .iter()
        .find(|k| k.name() == "gated_act")
        .expect("built in");
    let case = kernel
        .cases()
        .into_iter()
        .find(|c| wanted(&device, c))
        .expect("a case");
    let outcome = pollster::block_on(run_case(&device, *kernel, &case)).expect("runs");
    assert!(outcome.passed());
}
