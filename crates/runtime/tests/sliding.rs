//! Sliding windows keep the last keys only: the same answers as with all of them, in less memory, wherever a sequence goes.

#[path = "support/opened.rs"]
mod opened;

use firelight_kernels::sample::SampleSettings;
use firelight_kernels::{Array, Recorder};
use firelight_runtime::cache::Cache;
use firelight_runtime::models::{CausalLm, Inputs, LayerCache, Spec};
use firelight_runtime::{CancelToken, Engine, Result, State};
use opened::{cpu, gpu, load};
use pollster::block_on;
use std::sync::Arc;

/// The same model that keeps the keys and values of all positions.
struct KeepsAll {
    model: Arc<dyn CausalLm>,
    spec: Spec,
}

impl KeepsAll {
    fn of(model: &Arc<dyn CausalLm>) -> Arc<dyn CausalLm> {
        let mut spec = model.spec().clone();
        let mut slides = 0;
        for layer in &mut spec.layers {
            if let LayerCache::Sliding {
                kv_heads, head_dim, ..
            } = *layer
            {
                *layer = LayerCache::Attention { kv_heads, head_dim };
                slides += 1;
            }
        }
        assert!(slides > 0, "no layer slides");
        let model = Arc::clone(model);
        Arc::new(KeepsAll { model, spec })
    }
}

impl CausalLm for KeepsAll {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn forward(
        &self,
        rec: &mut Recorder,
        inputs: Inputs<'_>,
        cache: &Cache,
    ) -> Result<Option<Array>> {
        self.model.forward(rec, inputs, cache)
    }
}

fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 5) % 380).collect()
}

/// Tokens processed, and the answer.
fn answer(state: &mut State, ids: &[u32], n: usize) -> (usize, Vec<u32>) {
    let settings = SampleSettings::default();
    let begun = block_on(state.begin(ids, settings, n, usize::MAX, &CancelToken::new()));
    let mut said = Vec::new();
    while let Some(id) = block_on(state.next()).expect("a token") {
        said.push(id);
    }
    state.stop();
    (begun.expect("begins"), said)
}

fn logits(state: &mut State, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    let keep = |_, chunk: &[f32]| {
        all.extend_from_slice(chunk);
        Ok(())
    };
    block_on(state.logits(ids, keep)).expect("logits");
    all
}

fn same_with_less(engine: &Engine) {
    for family in ["gemma3_text", "qwen3", "phi3"] {
        let model = load(engine, family);
        let all = KeepsAll::of(&model.model);
        let state = |m: &Arc<dyn CausalLm>| State::new(&model.device, m).expect("a state");
        let (mut few, mut many) = (state(&model.model), state(&all));
        let ids = prompt(490);
        let (a, b) = (logits(&mut few, &ids), logits(&mut many, &ids));
        let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0f32, |m, d| if d > m || d.is_nan() { d } else { m });
        assert!(apart < 1e-5 && a.len() == b.len(), "{family}: {apart}");
        for (id, n) in [(7, 3), (9, 2)] {
            for _ in 0..n {
                let a = block_on(few.step_logits(id)).expect("logits");
                let b = block_on(many.step_logits(id)).expect("logits");
                assert_eq!(a.len(), b.len());
                assert!(
                    a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5),
                    "{family}"
                );
            }
        }
        assert!(few.cache_bytes() < many.cache_bytes(), "{family}");

        // Growing in blocks, going on, back a little, and back too far.
        let (mut few, mut many) = (state(&model.model), state(&all));
        for (n, new, from_start) in [
            (30, 4, true),
            (290, 4, false),
            (440, 30, false),
            (440, 30, false),
            (400, 9, false),
            (470, 20, false),
            // Its window has been written over.
            (100, 6, true),
            (480, 8, false),
        ] {
            let (processed, said) = answer(&mut few, &prompt(n), new);
            assert_eq!(said, answer(&mut many, &prompt(n), new).1, "{family}, {n}");
            assert_eq!(said.len(), new);
            assert_eq!(
                processed == n as usize,
                from_start,
                "{family}, {n}: {processed}"
            );
        }
    }
}

#[test]
fn the_same_answers_with_fewer_keys_on_the_cpu() {
    same_with_less(&cpu());
}

#[test]
fn the_same_answers_with_fewer_keys_on_a_gpu() {
    let name = "the_same_answers_with_fewer_keys_on_a_gpu";
    if let Some(engine) = gpu(name) {
        same_with_less(&engine);
    }
}
