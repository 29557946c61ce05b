//! Prefill and decode speed of a loaded model, measured as llama-bench does, with what a decoded token costs.

use crate::engine::LoadedModel;
use crate::source::CancelToken;
use crate::state::State;
use crate::{Error, Result, clock};
use firelight_kernels::sample::SampleSettings;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Prompt tokens (`-p`).
    pub prefill: usize,
    /// Generated tokens (`-n`).
    pub decode: usize,
    /// Runs; medians are reported (`-r`).
    pub runs: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions {
            prefill: 256,
            decode: 64,
            runs: 5,
        }
    }
}

/// Medians over the runs; counts per decoded token in the steady state.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BenchReport {
    /// Device name.
    pub device: String,
    /// Rung of the ladder.
    pub rung: &'static str,
    /// Prompt tokens per second.
    pub prefill_tps: f64,
    /// Generated tokens per second.
    pub decode_tps: f64,
    /// Kernel calls.
    pub dispatches: u64,
    /// Compute passes.
    pub passes: u64,
    /// Queue submits.
    pub submits: u64,
    /// Bytes read back.
    pub readback_bytes: u64,
    /// Device buffers created.
    pub buffers_created: f64,
    /// Bind groups created.
    pub bind_groups_created: f64,
    /// Microseconds to encode and submit (on the CPU: to run).
    pub encode_us: f64,
    /// Bytes of weights and caches held.
    pub memory_bytes: u64,
}

/// Runs the benchmark; one unmeasured run comes first. `on_run` gets runs done and runs in all.
///
/// # Errors
/// `InvalidInput` for nothing to measure, `Limit` beyond the model's context, `Device`.
pub async fn bench(
    model: &LoadedModel,
    options: &BenchOptions,
    on_run: &mut dyn FnMut(usize, usize),
) -> Result<BenchReport> {
    let spec = model.model.spec();
    let (prefill, decode) = (options.prefill.max(1), options.decode.max(2));
    if prefill + decode > spec.context {
        let got = (prefill + decode) as u64;
        return Err(Error::Limit {
            what: "tokens of the benchmark",
            max: spec.context as u64,
            got,
        });
    }
    // Any ids do: the work does not depend on them.
    let prompt: Vec<u32> = (0..prefill)
        .map(|i| ((i * 7919 + 13) % spec.vocab) as u32)
        .collect();
    let (greedy, cancel) = (SampleSettings::default(), CancelToken::new());
    let mut state = State::new(&model.device, &model.model)?;
    let (mut prefills, mut decodes, mut buffers, mut groups) = (vec![], vec![], 0.0, 0.0);
    for run in 0..=options.runs.max(1) {
        state.clear();
        let start = clock::now();
        // As many positions as are decoded, and one that is sampled from the prompt.
        state
            .begin(&prompt, greedy, decode + 1, spec.context, &cancel)
            .await?;
        state.next().await?;
        let prefilled = start.elapsed();
        // The first decoded token records the step, the second is the steady state.
        state.next().await?;
        let before = model.device.memory();
        let start = clock::now();
        let mut steps = 0;
        while steps + 1 < decode && state.next().await?.is_some() {
            steps += 1;
        }
        let decoded = start.elapsed();
        let after = model.device.memory();
        state.stop();
        if run > 0 {
            // On a GPU the second token was under way when prefill ended: its time is not in the measure.
            prefills.push(prefill as f64 / prefilled.as_secs_f64().max(1e-9));
            decodes.push(steps as f64 / decoded.as_secs_f64().max(1e-9));
            buffers +=
                (after.buffers_created - before.buffers_created) as f64 / steps.max(1) as f64;
            groups += (after.bind_groups_created - before.bind_groups_created) as f64
                / steps.max(1) as f64;
        }
        on_run(run, options.runs.max(1));
    }
    let (cost, encode) = state.decode_cost();
    let runs = options.runs.max(1) as f64;
    Ok(BenchReport {
        device: model.device.name().to_owned(),
        rung: model.device.rung().name(),
        prefill_tps: median(&mut prefills),
        decode_tps: median(&mut decodes),
        dispatches: cost.dispatches,
        passes: cost.passes,
        submits: cost.submits,
        readback_bytes: cost.readback_bytes,
        buffers_created: buffers / runs,
        bind_groups_created: groups / runs,
        encode_us: encode.as_secs_f64() * 1e6,
        memory_bytes: model.device.memory().total_bytes(),
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
