//! Candle's tokens a second, for the prompt and for each token after it: `candle-bench MODEL.gguf|FOLDER PROMPT GENERATE`.
//!
//! Threads are as many as RAYON_NUM_THREADS says. A warm-up, then the best of three; one JSON line.
use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, quantized_gemma3, quantized_llama};
use std::path::Path;
use std::time::Instant;

enum Model {
    Llama(quantized_llama::ModelWeights),
    Gemma(quantized_gemma3::ModelWeights),
    Floats(Box<llama::Llama>, llama::Config, llama::Cache),
}

impl Model {
    fn load(path: &Path) -> Result<Model> {
        if path.is_dir() {
            let text = std::fs::read_to_string(path.join("config.json"))?;
            let config: llama::LlamaConfig =
                serde_json::from_str(&text).map_err(candle_core::Error::wrap)?;
            let config = config.into_config(false);
            let files = [path.join("model.safetensors")];
            // SAFETY: nobody writes to the file meanwhile.
            let weights =
                unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu)? };
            let cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
            return Ok(Model::Floats(
                Box::new(llama::Llama::load(weights, &config)?),
                config,
                cache,
            ));
        }
        let mut file = std::fs::File::open(path)?;
        let content = gguf_file::Content::read(&mut file)?;
        let architecture = content.metadata["general.architecture"]
            .to_string()?
            .clone();
        Ok(match architecture.as_str() {
            "gemma3" => Model::Gemma(quantized_gemma3::ModelWeights::from_gguf(
                content,
                &mut file,
                &Device::Cpu,
            )?),
            _ => Model::Llama(quantized_llama::ModelWeights::from_gguf(
                content,
                &mut file,
                &Device::Cpu,
            )?),
        })
    }

    fn restart(&mut self) -> Result<()> {
        match self {
            // Both forget what was before at position 0, or are told to.
            Model::Llama(m) => m.clear_kv_cache(),
            Model::Gemma(_) => {}
            Model::Floats(_, config, cache) => {
                *cache = llama::Cache::new(true, DType::F32, config, &Device::Cpu)?
            }
        }
        Ok(())
    }

    fn next(&mut self, tokens: &[u32], at: usize) -> Result<u32> {
        let x = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Model::Llama(m) => m.forward(&x, at)?,
            Model::Gemma(m) => m.forward(&x, at)?,
            Model::Floats(m, _, cache) => m.forward(&x, at, cache)?,
        };
        logits.flatten_all()?.argmax(0)?.to_scalar()
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, prompt, generate] = args.as_slice() else {
        eprintln!("usage: candle-bench MODEL.gguf|FOLDER PROMPT GENERATE");
        std::process::exit(2);
    };
    let (prompt, generate): (u32, usize) = (
        prompt.parse().expect("a number"),
        generate.parse().expect("a number"),
    );
    let mut model = Model::load(Path::new(path))?;
    let tokens: Vec<u32> = (0..prompt).map(|i| 100 + i * 7 % 20_000).collect();
    let (mut prefill, mut decode) = (0f64, 0f64);
    for round in 0..4 {
        model.restart()?;
        let start = Instant::now();
        let mut token = model.next(&tokens, 0)?;
        let first = start.elapsed().as_secs_f64();
        for i in 0..generate {
            token = model.next(&[token], tokens.len() + i)?;
        }
        let rest = start.elapsed().as_secs_f64() - first;
        if round > 0 {
            prefill = prefill.max(f64::from(prompt) / first);
            decode = decode.max(generate as f64 / rest);
        }
    }
    println!(
        "{}",
        serde_json::json!({ "prefill_tps": prefill, "decode_tps": decode })
    );
    Ok(())
}
