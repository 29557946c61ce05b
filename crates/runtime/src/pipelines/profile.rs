//! Where the time of a prompt and of a token goes: per kernel, against what the device can do at best, and as a Chrome trace.

use crate::engine::LoadedModel;
use crate::state::{CHUNK, State};
use crate::{Error, Result};
use firelight_kernels::{CallTime, Ceilings};
use serde::Serialize;
use std::collections::BTreeMap;

/// What is profiled.
#[derive(Clone, Copy, Debug)]
pub struct ProfileOptions {
    /// Prompt tokens, at most [`CHUNK`].
    pub prefill: usize,
    /// How often each step runs; the fastest run counts.
    pub runs: usize,
}

/// Where the time went.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileReport {
    /// Device name.
    pub device: String,
    /// Rung of the ladder.
    pub rung: &'static str,
    /// Bytes per second the device's memory gives at best (measured).
    pub bandwidth: f64,
    /// Floating-point operations per second of our f32 product there (measured).
    pub flops: f64,
    /// The prompt's step, and a token's.
    pub steps: Vec<StepProfile>,
}

/// Where the time of a step went.
#[derive(Clone, Debug, Serialize)]
pub struct StepProfile {
    /// `prompt` or `token`.
    pub step: &'static str,
    /// Its tokens.
    pub tokens: usize,
    /// Seconds of all calls.
    pub seconds: f64,
    /// Per kernel, the longest first.
    pub kernels: Vec<KernelProfile>,
    /// Every call, in order.
    #[serde(skip)]
    pub calls: Vec<CallTime>,
}

/// What one kernel did in a step.
#[derive(Clone, Debug, Serialize)]
pub struct KernelProfile {
    /// Its name and variant.
    pub kernel: String,
    /// Calls.
    pub calls: usize,
    /// Seconds of all of them.
    pub seconds: f64,
    /// Part of the step, 0 to 1.
    pub share: f64,
    /// Bytes moved per second, at least; `None` where the kernel cannot say.
    pub bytes_per_s: Option<f64>,
    /// Floating-point operations of its products per second.
    pub flops_per_s: Option<f64>,
    /// The nearer of the two to its ceiling, 0 to 1 (above 1 where caches serve what is counted as memory).
    pub of_ceiling: Option<f64>,
}

/// Profiles a prompt's step and the step of the token after it.
///
/// # Errors
/// `InvalidInput` for no tokens, `Limit` for more than a chunk, `Device`.
pub async fn profile(model: &LoadedModel, options: &ProfileOptions) -> Result<ProfileReport> {
    let spec = model.model.spec();
    let prefill = options.prefill.min(spec.context.saturating_sub(1));
    if prefill == 0 || options.prefill > CHUNK {
        return Err(Error::Limit {
            what: "tokens of a profiled prompt",
            max: CHUNK as u64,
            got: options.prefill as u64,
        });
    }
    let ceilings = model.device.ceilings().await?;
    let prompt: Vec<u32> = (0..prefill)
        .map(|i| ((i * 7919 + 13) % spec.vocab) as u32)
        .collect();
    let mut state = State::new(&model.device, &model.model)?;
    let (mut prompts, mut tokens) = (Vec::new(), Vec::new());
    // The first run of each finds caches cold and pipelines not made.
    for _ in 0..=options.runs.max(1) {
        prompts.push(state.profile_prompt(&prompt).await?);
    }
    for _ in 0..=options.runs.max(1) {
        tokens.push(state.profile_token().await?);
    }
    let steps = [("prompt", prefill, prompts), ("token", 1, tokens)];
    Ok(ProfileReport {
        device: model.device.name().to_owned(),
        rung: model.device.rung().name(),
        bandwidth: ceilings.bandwidth,
        flops: ceilings.flops,
        steps: steps
            .into_iter()
            .filter_map(|(step, tokens, mut runs)| {
                runs.remove(0);
                let fastest = runs.into_iter().min_by_key(|calls| total(calls))?;
                Some(step_profile(step, tokens, fastest, ceilings))
            })
            .collect(),
    })
}

fn total(calls: &[CallTime]) -> u64 {
    calls.iter().map(|c| c.ns).sum()
}

fn step_profile(
    step: &'static str,
    tokens: usize,
    calls: Vec<CallTime>,
    ceilings: Ceilings,
) -> StepProfile {
    let seconds = total(&calls) as f64 * 1e-9;
    let mut by_kernel: BTreeMap<(&str, &str), Vec<&CallTime>> = BTreeMap::new();
    for call in &calls {
        by_kernel
            .entry((call.kernel, call.variant))
            .or_default()
            .push(call);
    }
    let mut kernels: Vec<KernelProfile> = by_kernel
        .into_iter()
        .map(|((kernel, variant), calls)| {
            let took = calls.iter().map(|c| c.ns).sum::<u64>().max(1) as f64 * 1e-9;
            let sum = |of: fn(&firelight_kernels::Work) -> u64| -> Option<f64> {
                let each = calls.iter().map(|c| c.work.as_ref().map(of));
                let sum: u64 = each.sum::<Option<u64>>()?;
                Some(sum as f64 / took)
            };
            let (bytes, flops) = (sum(|w| w.bytes), sum(|w| w.flops).filter(|f| *f > 0.0));
            let of = |rate: Option<f64>, best: f64| rate.map(|r| r / best.max(1.0));
            let parts = [of(bytes, ceilings.bandwidth), of(flops, ceilings.flops)];
            let nearer = parts.into_iter().flatten().reduce(f64::max);
            KernelProfile {
                kernel: format!("{kernel}/{variant}"),
                calls: calls.len(),
                seconds: took,
                share: took / seconds.max(1e-12),
                bytes_per_s: bytes,
                flops_per_s: flops,
                of_ceiling: nearer,
            }
        })
        .collect();
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    StepProfile {
        step,
        tokens,
        seconds,
        kernels,
        calls,
    }
}

impl ProfileReport {
    /// The calls in the trace event format that `chrome://tracing` and Perfetto open: a row for each step, microseconds.
    pub fn chrome_trace(&self) -> serde_json::Value {
        let mut events = Vec::new();
        for (row, step) in self.steps.iter().enumerate() {
            events.push(serde_json::json!({
                "name": "thread_name", "ph": "M", "pid": 1, "tid": row + 1,
                "args": { "name": format!("{} ({} tokens)", step.step, step.tokens) },
            }));
            for call in &step.calls {
                let mut args = serde_json::json!({ "operands": call.operands });
                if let Some(work) = call.work {
                    args["bytes"] = work.bytes.into();
                    args["flops"] = work.flops.into();
                }
                events.push(serde_json::json!({
                    "name": format!("{}/{}", call.kernel, call.variant), "ph": "X", "pid": 1, "tid": row + 1,
                    "ts": call.start_ns as f64 * 1e-3, "dur": call.ns as f64 * 1e-3, "args": args,
                }));
            }
        }
        let device = format!("{} (rung {})", self.device, self.rung);
        serde_json::json!({ "traceEvents": events, "displayTimeUnit": "ns", "otherData": { "device": device } })
    }
}
