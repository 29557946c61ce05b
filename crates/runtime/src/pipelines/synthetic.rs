//! A model in the shapes of a configuration with random weights: what would it do here, before it is downloaded?

use crate::checkpoint::Checkpoint;
use crate::{Error, Result};
use firelight_kernels::DType;

/// A checkpoint for [`crate::Engine::load_checkpoint`] from a `config.json` and a weight type: `q4`, `q8`, `f16`, or any
/// weight type's own name (`q4_k`, `bf16`, …). It has no tokenizer: it can be benchmarked, not talked to.
///
/// # Errors
/// `Unsupported` for an unknown type, `Malformed` if the configuration is no JSON.
pub fn synthetic(config_json: &[u8], quant: &str) -> Result<Checkpoint> {
    let dtype = match quant {
        "q4" => DType::Q4_0,
        "q8" => DType::Q8_0,
        other => other.parse::<DType>()?,
    };
    if !firelight_kernels::dequant::WEIGHT_DTYPES.contains(&dtype) {
        return Err(Error::Unsupported(format!(
            "weights of type {dtype}; try q4, q8 or f16"
        )));
    }
    Checkpoint::synthetic(config_json, dtype)
}
