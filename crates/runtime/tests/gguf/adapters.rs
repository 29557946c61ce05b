//! Adapters over GGUF files.

use super::*;

/// An adapter is made for upstream's order of rows, which GGUF's llama has not; quantised matrices take it, too.
#[test]
fn adapters_fit_a_gguf_as_well() {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        self_test: false,
        ..Default::default()
    };
    let engine = block_on(Engine::new(options)).expect("a CPU");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("llama.gguf");
    convert(&ARCHS[0], &file);
    let golden = Weights::open_path(data("lora/golden.safetensors")).expect("goldens");
    let ids: Vec<i64> =
        bytemuck::pod_collect_to_vec(golden.read("input_ids").expect("ids").bytes());
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let model = block_on(engine.load(&file, &mut |_, _| ())).expect("loads");
    for name in ["a", "b"] {
        let adapter = Adapter::open(data("lora").join(name)).expect("opens");
        adapter.fit(&model).expect("fits");
        let used = vec![AdapterUse {
            adapter,
            scale: 1.0,
        }];
        let expected = golden.read(&format!("{name}.logits")).expect("logits");
        let expected = expected.to_f32_vec().expect("floats");
        let merged = Checkpoint::open(&file)
            .expect("opens")
            .with_adapters(used.clone());
        let merged = block_on(engine.load_checkpoint(Arc::new(merged), &mut |_, _| ()));
        let merged = merged.expect("merges");
        for (model, adapters) in [(&model, &used[..]), (&merged, &[])] {
            let mut state = State::new(&model.device, &model.model).expect("a state");
            state.set_adapters(adapters);
            let mut logits = Vec::new();
            let keep = |_, chunk: &[f32]| {
                logits.extend_from_slice(chunk);
                Ok(())
            };
            block_on(state.logits(&ids, keep)).expect("logits");
            let tail = &logits[logits.len() - expected.len()..];
            let apart = tail.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let worst = apart.fold(0f32, |m, d| if d > m || d.is_nan() { d } else { m });
            assert!(
                worst < 1e-3,
                "{name}, merged {}: {worst}",
                adapters.is_empty()
            );
        }
    }
}
