//! What sentence-transformers keeps beside a model: pooling, normalisation, longest text, prompts.
//!
//! | file | what is read |
//! |---|---|
//! | `modules.json` | which steps there are: Transformer, Pooling, Normalize |
//! | `1_Pooling/config.json` (or as `modules.json` says) | how hidden states become one vector |
//! | `sentence_bert_config.json` | `max_seq_length` |
//! | `config_sentence_transformers.json` | `prompts`, `default_prompt_name` |
//! | `tokenizer_config.json` | `model_max_length`, where nothing else bounds a text |
//!
//! Source: `sentence_transformers/SentenceTransformer.py`, `models/Pooling.py` 5.x.

use crate::checkpoint::Checkpoint;
use crate::encoder::Want;
use crate::{Error, Result};
use firelight_kernels::span_pool::Pool;
use serde_json::Value;
use std::collections::BTreeMap;

/// How a text's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// Their mean.
    Mean,
    /// Their sum over the square root of their number.
    MeanSqrtLen,
    /// The largest number of each column.
    Max,
    /// Their mean, later ones weighing more.
    WeightedMean,
}

impl Pooling {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Pooling); 6] = [
        ("cls", Pooling::Cls),
        ("last", Pooling::Last),
        ("mean", Pooling::Mean),
        ("mean-sqrt-len", Pooling::MeanSqrtLen),
        ("max", Pooling::Max),
        ("weighted-mean", Pooling::WeightedMean),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, p)| *p == self);
        found.map_or("mean", |(name, _)| name)
    }

    /// The pooling of this name.
    pub fn by_name(name: &str) -> Option<Pooling> {
        let found = Self::ALL.iter().find(|(n, _)| *n == name);
        found.map(|(_, p)| *p)
    }

    /// What to ask an encoder for.
    pub(crate) fn want(self) -> Want {
        match self {
            Pooling::Cls => Want::First,
            Pooling::Last => Want::Last,
            Pooling::Mean => Want::Pooled(Pool::Mean),
            Pooling::MeanSqrtLen => Want::Pooled(Pool::MeanSqrtLen),
            Pooling::Max => Want::Pooled(Pool::Max),
            Pooling::WeightedMean => Want::Pooled(Pool::WeightedMean),
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub struct SentenceConfig {
    /// How hidden states are pooled; `None`: the files do not say.
    pub pooling: Option<Pooling>,
    /// Vectors are scaled to length 1.
    pub normalize: bool,
    /// Tokens of the longest text, special ones counted; `None`: the files do not say.
    pub max_tokens: Option<usize>,
    /// What to put before a text, by the name of its use.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that is used if none is asked for.
    pub default_prompt: Option<String>,
}

impl SentenceConfig {
    /// Reads what is beside the weights; without any of the files, what sentence-transformers does then: no normalisation, and
    /// the pooling is left open.
    ///
    /// # Errors
    /// `Malformed` for a file that is no JSON or says nonsense, `Unsupported` for a step or pooling that is not here.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let json = |name: &str| -> Result<Option<Value>> {
            let Some(bytes) = checkpoint.side_file(name)? else {
                return Ok(None);
            };
            let value = serde_json::from_slice(&bytes);
            value
                .map(Some)
                .map_err(|e| Error::malformed(name, e.to_string()))
        };
        let (mut normalize, mut pooling) = (false, None);
        let mut folder = Some("1_Pooling".to_owned());
        if let Some(modules) = json("modules.json")? {
            (folder, normalize) = steps(&modules)?;
        }
        if let Some(folder) = folder {
            let name = format!("{folder}/config.json");
            if let Some(value) = json(&name)? {
                pooling = Some(pooling_of(&name, &value)?);
            }
        }
        let size = |file: &str, key: &str| -> Result<Option<usize>> {
            let value = json(file)?;
            let value = value.as_ref().and_then(|v| v.get(key));
            match value.filter(|v| !v.is_null()) {
                None => Ok(None),
                // transformers writes 10³⁰ where there is no bound.
                Some(v) => match v.as_f64().filter(|n| *n >= 1.0) {
                    Some(n) => Ok((n < 1e9).then_some(n as usize)),
                    None => Err(Error::malformed(
                        file,
                        format!("`{key}` is {v}; expected a positive number"),
                    )),
                },
            }
        };
        let max_tokens = match size("sentence_bert_config.json", "max_seq_length")? {
            Some(n) => Some(n),
            None => size("tokenizer_config.json", "model_max_length")?,
        };
        let (mut prompts, mut default_prompt) = (BTreeMap::new(), None);
        if let Some(value) = json("config_sentence_transformers.json")? {
            let map = value.get("prompts").and_then(Value::as_object);
            for (name, text) in map.into_iter().flatten() {
                prompts.extend(text.as_str().map(|text| (name.clone(), text.to_owned())));
            }
            let name = value.get("default_prompt_name").and_then(Value::as_str);
            default_prompt = name.map(str::to_owned);
        }
        Ok(SentenceConfig {
            pooling,
            normalize,
            max_tokens,
            prompts,
            default_prompt,
        })
    }
}

/// The folder of the pooling and whether vectors are normalised.
fn steps(modules: &Value) -> Result<(Option<String>, bool)> {
    let (mut folder, mut normalize) = (None, false);
    let bad = || Error::malformed("modules.json", "expected a list of modules");
    for module in modules.as_array().ok_or_else(bad)? {
        let kind = module.get("type").and_then(Value::as_str).unwrap_or("");
        let path = module.get("path").and_then(Value::as_str).unwrap_or("");
        match kind.rsplit('.').next().unwrap_or(kind) {
            "Transformer" => {}
            "Pooling" => folder = Some(path.to_owned()),
            "Normalize" => normalize = true,
            _ => {
                return Err(Error::Unsupported(format!(
                    "module `{kind}` in modules.json; this version has Transformer, Pooling, Normalize"
                )));
            }
        }
    }
    Ok((folder, normalize))
}

fn pooling_of(file: &str, value: &Value) -> Result<Pooling> {
    let known = [
        ("pooling_mode_cls_token", "cls", Pooling::Cls),
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_max_tokens", "max", Pooling::Max),
        (
            "pooling_mode_mean_sqrt_len_tokens",
            "mean_sqrt_len_tokens",
            Pooling::MeanSqrtLen,
        ),
        (
            "pooling_mode_weightedmean_tokens",
            "weightedmean",
            Pooling::WeightedMean,
        ),
        ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
    ];
    let set = |key: &str| value.get(key).and_then(Value::as_bool) == Some(true);
    let name = value.get("pooling_mode").and_then(Value::as_str);
    let found: Vec<Pooling> = known
        .iter()
        .filter(|(key, short, _)| set(key) || name == Some(*short))
        .map(|(_, _, pooling)| *pooling)
        .collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::malformed(
            file,
            "no pooling is switched on; expected one `pooling_mode_…` that is true",
        )),
        _ => Err(Error::Unsupported(format!(
            "{file}: {} poolings at once; this version does one",
            found.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_and_poolings() {
        let modules = json!([
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]);
        let read = steps(&modules).expect("steps");
        assert_eq!(read, (Some("1_Pooling".to_owned()), true));
        let dense = json!([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]);
        let error = steps(&dense).expect_err("no dense layers");
        assert!(error.to_string().contains("Dense"), "{error}");
        assert!(steps(&json!({})).is_err());

        let of = |v: Value| pooling_of("config.json", &v);
        let cls = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
        assert_eq!(of(cls).expect("one"), Pooling::Cls);
        let new = json!({"pooling_mode": "mean"});
        assert_eq!(of(new).expect("one"), Pooling::Mean);
        assert!(of(json!({"pooling_mode_cls_token": false})).is_err());
        let two = json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true});
        assert!(of(two).is_err());
    }

    #[test]
    fn names_go_both_ways() {
        for (name, pooling) in Pooling::ALL {
            assert_eq!(Pooling::by_name(name), Some(pooling));
            assert_eq!(pooling.name(), name);
        }
        assert_eq!(Pooling::by_name("median"), None);
    }
}
