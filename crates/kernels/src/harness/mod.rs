//! Runs a kernel's cases against its reference on a device: for tests, for the start-up self-test, for benchmarks.
//!
//! Operands stand between guard bands, so that a write outside them shows. The reference sees exactly the values the device
//! sees (rounded to f16, quantised). A kernel defined outside this crate is run the same way.

mod bench;
mod fill;
mod table;

pub use bench::Timing;
#[cfg(not(target_arch = "wasm32"))]
pub use bench::bench_case;
pub use fill::random_weight;
pub use table::kernels_markdown;

use crate::array::bytes_of;
use crate::kernel::{Access, Call, Caps, Case, Fill, Kernel, Plan, View};
use crate::memory::Holder;
use crate::{Array, DType, Device, Error, KERNELS, Recorder, Result, reference};
use firelight_tensor::compare::{Tolerance, compare};
use std::task::Poll;

/// Bytes before and after each operand that nothing may touch.
const GUARD: u64 = 256;
const GUARD_BYTE: u8 = 0xA5;

/// How a case went on a device.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The variant the plan picked (`cpu` on a CPU).
    pub variant: &'static str,
    /// The case's name.
    pub case: String,
    /// Largest difference to the reference over all written operands.
    pub max_abs: f64,
    /// What went wrong; `None`: it passed.
    pub failure: Option<String>,
}

impl Outcome {
    /// True if every written operand is within the case's bound and nothing else was touched.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// The operands of a case on a device, with their host copies.
pub(crate) struct Operands {
    arrays: Vec<Array>,
    /// Whole buffers, guards included, as bytes.
    frames: Vec<Array>,
    bytes: Vec<Vec<u8>>,
    views: Vec<View>,
}

impl Operands {
    pub(crate) fn new(device: &Device, case: &Case) -> Result<Self> {
        let mut ops = Operands {
            arrays: vec![],
            frames: vec![],
            bytes: vec![],
            views: vec![],
        };
        for (i, (dtype, shape, fill)) in case.operands.iter().enumerate() {
            let size = bytes_of(*dtype, shape)?;
            let bytes = fill::bytes(*dtype, size as usize, fill, i as u64 + 1)?;
            let frame_len = GUARD + size.next_multiple_of(16) + GUARD;
            let frame = device.array(DType::U8, &[frame_len as usize], Holder::User)?;
            let mut framed = vec![GUARD_BYTE; frame_len as usize];
            framed[GUARD as usize..][..bytes.len()].copy_from_slice(&bytes);
            device.write(&frame, &framed)?;
            let view = Array {
                dtype: *dtype,
                shape: shape.clone(),
                offset: GUARD,
                nbytes: size,
                lease: frame.lease.clone(),
            };
            ops.arrays.push(view);
            ops.frames.push(frame);
            ops.bytes.push(bytes);
            ops.views.push(View {
                dtype: *dtype,
                shape: shape.clone(),
            });
        }
        Ok(ops)
    }

    pub(crate) fn refs(&self) -> Vec<&Array> {
        self.arrays.iter().collect()
    }
}

/// Runs one case on a device and compares it with the reference.
///
/// # Errors
/// What recording or running returns; a wrong result is not an error but an [`Outcome`].
pub async fn run_case(
    device: &Device,
    kernel: &'static dyn Kernel,
    case: &Case,
) -> Result<Outcome> {
    let ops = Operands::new(device, case)?;
    let mut rec = Recorder::new(device);
    rec.call_words(kernel, &ops.refs(), case.params.clone())?;
    judge(device, kernel, case, &ops, rec).await
}

/// [`run_case`] of a call as models record it: several where that may be.
///
/// # Errors
/// As [`run_case`].
#[cfg(not(target_arch = "wasm32"))]
pub async fn run_recorded(
    device: &Device,
    kernel: &'static dyn Kernel,
    case: &Case,
) -> Result<Outcome> {
    let ops = Operands::new(device, case)?;
    let mut rec = Recorder::new(device);
    record_case(&mut rec, kernel, &ops.refs(), &case.params)?;
    judge(device, kernel, case, &ops, rec).await
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn record_case(
    rec: &mut Recorder,
    kernel: &'static dyn Kernel,
    operands: &[&Array],
    params: &[u32],
) -> Result<()> {
    match kernel.recorded() {
        Some(record) => record(rec, operands, params),
        None => rec.call_words(kernel, operands, params.to_vec()),
    }
}

/// What a kernel would run for a case on a device of `caps`.
///
/// # Errors
/// What the plan refuses; not for one of the kernel's own cases.
pub fn planned(kernel: &dyn Kernel, case: &Case, caps: &Caps) -> Result<Plan> {
    let view = |(dtype, shape, _): &(DType, Vec<usize>, Fill)| View {
        dtype: *dtype,
        shape: shape.clone(),
    };
    let operands: Vec<View> = case.operands.iter().map(view).collect();
    kernel.plan(
        &Call {
            operands: &operands,
            params: &case.params,
        },
        caps,
    )
}

/// Runs what was recorded on a case's operands, and compares them with the reference.
async fn judge(
    device: &Device,
    kernel: &'static dyn Kernel,
    case: &Case,
    ops: &Operands,
    rec: Recorder,
) -> Result<Outcome> {
    let plan = planned(kernel, case, device.caps())?;
    let running = rec.finish()?.submit()?;

    let mut expected = Vec::new();
    for (view, bytes) in ops.views.iter().zip(&ops.bytes) {
        expected.push(reference::to_f64(view.dtype, bytes)?);
    }
    kernel.reference(
        &Call {
            operands: &ops.views,
            params: &case.params,
        },
        &mut expected,
    );

    let rounds = device
        .as_cpu()
        .is_some_and(|cpu| !cpu.exact && !cpu.reference);
    let tolerance = case
        .quantized_tolerance
        .filter(|_| rounds)
        .unwrap_or(case.tolerance);
    let mut outcome = Outcome {
        kernel: kernel.name(),
        variant: if device.is_gpu() { plan.variant } else { "cpu" },
        case: case.name.clone(),
        max_abs: 0.0,
        failure: None,
    };
    let frames = together(ops.frames.iter().map(|frame| device.read(frame))).await;
    running.wait().await?;
    for ((i, operand), frame) in kernel.operands().iter().enumerate().zip(frames) {
        let frame = frame?;
        let failure = check_operand(
            operand.access,
            ops,
            i,
            &frame,
            &expected[i],
            tolerance,
            &mut outcome.max_abs,
        )?;
        if let Some(what) = failure {
            outcome
                .failure
                .get_or_insert(format!("operand `{}`: {what}", operand.name));
        }
    }
    Ok(outcome)
}

fn check_operand(
    access: Access,
    ops: &Operands,
    i: usize,
    frame: &[u8],
    expected: &[f64],
    tolerance: Tolerance,
    max_abs: &mut f64,
) -> Result<Option<String>> {
    let (start, len) = (GUARD as usize, ops.bytes[i].len());
    // A tail shorter than a word belongs to no operand, but to the word its last element is in.
    let end = start + len.next_multiple_of(4);
    let touched = frame[..start]
        .iter()
        .chain(&frame[end..])
        .position(|&b| b != GUARD_BYTE);
    if let Some(at) = touched {
        return Ok(Some(format!("wrote outside its memory (guard byte {at})")));
    }
    let actual = &frame[start..start + len];
    if access == Access::Read {
        return Ok(
            (actual != ops.bytes[i].as_slice()).then(|| "a read operand was changed".to_owned())
        );
    }
    let dtype = ops.views[i].dtype;
    let values = reference::to_f64(dtype, actual)?;
    if matches!(dtype, DType::U32 | DType::I32) {
        let bad = values.iter().zip(expected).position(|(a, e)| a != e);
        return Ok(
            bad.map(|at| format!("element {at} is {}, expected {}", values[at], expected[at]))
        );
    }
    let narrowed: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let result = compare(&narrowed, expected, tolerance);
    *max_abs = max_abs.max(result.max_abs);
    Ok((!result.passed()).then(|| result.to_string()))
}

/// What the self-test found.
#[derive(Clone, Debug, Default)]
pub struct SelfTest {
    /// One row per case.
    pub outcomes: Vec<Outcome>,
    /// The error that stopped it, if one did.
    pub error: Option<String>,
}

impl SelfTest {
    /// True if the device answered right everywhere.
    pub fn passed(&self) -> bool {
        self.error.is_none() && self.outcomes.iter().all(Outcome::passed)
    }

    /// The first failure, for people.
    pub fn failure(&self) -> Option<String> {
        let case = self.outcomes.iter().find(|o| !o.passed());
        let told = case.map(|o| {
            let what = o.failure.as_deref().unwrap_or_default();
            format!("{}/{} `{}`: {what}", o.kernel, o.variant, o.case)
        });
        told.or_else(|| self.error.clone())
    }
}

/// Runs every built-in kernel's self-test cases on a device: proof that it answers right before it is used.
pub async fn self_test(device: &Device) -> SelfTest {
    let mut report = SelfTest::default();
    let mut cases = Vec::new();
    for &kernel in KERNELS {
        let tested = kernel.cases().into_iter();
        let tested = tested.filter(|c| c.self_test && wanted(device, c));
        cases.extend(tested.map(|case| (kernel, case)));
    }
    #[cfg(not(target_arch = "wasm32"))]
    compile_ahead(device, &cases);
    for cases in cases.chunks(AT_ONCE) {
        let running = cases
            .iter()
            .map(|(kernel, case)| run_case(device, *kernel, case));
        for ((kernel, case), outcome) in cases.iter().zip(together(running).await) {
            match outcome {
                Ok(outcome) => report.outcomes.push(outcome),
                Err(e) => {
                    report.error = Some(format!("{} `{}`: {e}", kernel.name(), case.name));
                    return report;
                }
            }
        }
    }
    report
}

/// Cases of the self-test that are on their way at once: a browser takes milliseconds to give back a result.
const AT_ONCE: usize = 16;

/// What all of them give, in their order, none waiting for another.
async fn together<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(value) => *output = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    waiting
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

/// Compiles all shaders of the cases at once. What is wrong with one is said by its case.
#[cfg(not(target_arch = "wasm32"))]
fn compile_ahead(device: &Device, cases: &[(&'static dyn Kernel, Case)]) {
    let plan = |(kernel, case): &(&'static dyn Kernel, Case)| {
        Some((*kernel, planned(*kernel, case, device.caps()).ok()?))
    };
    let plans: Vec<_> = cases.iter().filter_map(plan).collect();
    let plans: Vec<_> = plans.iter().map(|(k, p)| (*k as &dyn Kernel, p)).collect();
    let _ = device.compile(&plans);
}

/// False for a case whose operands the device's features cannot hold (f16 arrays without f16 shaders).
pub fn wanted(device: &Device, case: &Case) -> bool {
    !device.is_gpu()
        || device.caps().f16
        || case
            .operands
            .iter()
            .enumerate()
            .all(|(i, (dtype, ..))| *dtype != DType::F16 || is_packed(case, i))
}

/// Packed weights are read as words: f16 weights need no f16 shaders.
fn is_packed(case: &Case, operand: usize) -> bool {
    let of = |i: usize| case.operands.get(i).map_or(&[][..], |o| &o.1);
    // As wide as the activations, operand 0, and not the result.
    operand > 0 && operand + 1 < case.operands.len() && of(operand).last() == of(0).last()
}

/// Runs all cases (benchmarks excepted) of `kernel` and fails with everything that is wrong: what a kernel's test calls.
///
/// # Errors
/// `InvalidInput` listing the failures; what running returns.
pub async fn check_kernel(device: &Device, kernel: &'static dyn Kernel) -> Result<usize> {
    let mut failures = Vec::new();
    let mut run = 0;
    for case in kernel
        .cases()
        .iter()
        .filter(|c| !c.bench && wanted(device, c))
    {
        let outcome = run_case(device, kernel, case).await?;
        run += 1;
        if let Some(what) = outcome.failure {
            failures.push(format!(
                "{}/{} `{}`: {what}",
                outcome.kernel, outcome.variant, outcome.case
            ));
        }
    }
    if failures.is_empty() {
        return Ok(run);
    }
    Err(Error::invalid(format!(
        "{} of {run} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    )))
}
