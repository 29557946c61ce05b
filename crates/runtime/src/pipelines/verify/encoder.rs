//! The cases of encoders: texts and pairs, with hidden states, pooled vectors and logits.

use super::{Check, Verify};
use crate::encoder::{EncoderRun, Head, LoadedEncoder, Tokens, Want};
use crate::engine::Engine;
use crate::pipelines::embed::normalize;
use crate::source::CancelToken;
use crate::{Error, Result};
use firelight_kernels::span_pool::Pool;
use firelight_tensor::compare::compare;
use firelight_text::Tokenizer;
use serde_json::Value;

/// Two texts as one sequence.
fn pair(tokenizer: &Tokenizer, a: &str, b: &str) -> Result<Tokens> {
    let (a, b) = (tokenizer.encode(a, false)?, tokenizer.encode(b, false)?);
    let (ids, types) = tokenizer.join(&a, &b)?;
    Ok(Tokens { ids, types })
}

impl Verify<'_> {
    /// Runs one case of an encoder: all its texts in one batch.
    pub(super) async fn encoder_case(
        &mut self,
        engine: &Engine,
        model: &LoadedEncoder,
        case: &str,
        value: &Value,
    ) -> Result<()> {
        let tokenizer = &model.text.tokenizer;
        let strings = |key: &str| -> Option<Vec<&str>> {
            let list = value.get(key)?.as_array()?;
            Some(list.iter().filter_map(Value::as_str).collect())
        };
        let texts: Vec<Tokens> = match (strings("texts"), strings("pair").as_deref()) {
            (Some(texts), _) => texts
                .into_iter()
                .map(|text| {
                    Ok(Tokens {
                        ids: tokenizer.encode(text, true)?,
                        types: Vec::new(),
                    })
                })
                .collect::<Result<_>>()?,
            (None, Some([a, b])) => vec![pair(tokenizer, a, b)?],
            _ if value.get("pairs").is_some() => {
                let pairs: Vec<[String; 2]> = serde_json::from_value(value["pairs"].clone())
                    .map_err(|e| {
                        Error::malformed("golden.json", format!("pairs of `{case}`: {e}"))
                    })?;
                let pairs = pairs.iter().map(|[a, b]| pair(tokenizer, a, b));
                pairs.collect::<Result<_>>()?
            }
            _ => {
                return Err(Error::Unsupported(format!(
                    "case `{case}`: neither texts nor a pair"
                )));
            }
        };
        let longest = texts.iter().map(|t| t.ids.len()).max().unwrap_or(0);
        let pad = tokenizer.pad().unwrap_or(0);
        let padded = |of: fn(&Tokens, usize) -> u32, pad: u32| -> Vec<u32> {
            let row = |t: &Tokens| -> Vec<u32> {
                let own = (0..t.ids.len()).map(|i| of(t, i));
                own.chain(std::iter::repeat(pad)).take(longest).collect()
            };
            texts.iter().flat_map(row).collect()
        };
        let inputs = [
            ("attention_mask", padded(|_, _| 1, 0)),
            ("input_ids", padded(|t, i| t.ids[i], pad)),
            (
                "token_type_ids",
                padded(|t, i| t.types.get(i).copied().unwrap_or(0), 0),
            ),
        ];
        for (name, values) in inputs {
            let name = format!("{case}.{name}");
            if self.golden.info(&name).is_some() {
                self.ids(name, &values)?;
            }
        }

        let run = EncoderRun::new(engine, model.clone());
        let names = [
            ("last_hidden_state", Want::Hidden),
            ("pooler_output", Want::Pooler),
            ("mean_pooled_normalized", Want::Pooled(Pool::Mean)),
            ("logits", Want::Logits),
        ];
        for (kind, want) in names {
            let name = format!("{case}.{kind}");
            if self.golden.info(&name).is_none() {
                continue;
            }
            let mut rows = run
                .run(
                    &texts,
                    want,
                    usize::MAX,
                    &CancelToken::new(),
                    &mut |_, _| (),
                )
                .await?;
            let per_token = matches!(model.model.spec().head, Head::Tokens(_)) && kind == "logits";
            if kind == "last_hidden_state" || per_token {
                self.attended(name, &texts, longest, &rows.concat())?;
                continue;
            }
            if kind == "mean_pooled_normalized" {
                rows.iter_mut().for_each(|row| normalize(row));
            }
            let n = rows.first().map_or(0, Vec::len);
            self.floats(name, &[texts.len(), n], rows.concat())?;
        }
        Ok(())
    }

    /// Compares what there is per token where there are tokens: the reference's rows of padding say nothing.
    pub(super) fn attended(
        &mut self,
        name: String,
        texts: &[Tokens],
        longest: usize,
        values: &[f32],
    ) -> Result<()> {
        let expected = self.golden.read(&name)?;
        let d = values.len() / texts.iter().map(|t| t.ids.len()).sum::<usize>().max(1);
        let shape = [texts.len(), longest, d];
        let all = expected.to_f32_vec()?;
        let mut wanted = Vec::with_capacity(values.len());
        for (text, rows) in texts.iter().zip(all.chunks((longest * d).max(1))) {
            wanted.extend_from_slice(rows.get(..text.ids.len() * d).unwrap_or(rows));
        }
        let result = compare(values, &wanted, self.tolerance);
        let same_shape = expected.shape() == shape;
        let detail = match (same_shape, result.passed()) {
            (false, _) => Some(format!("shape {shape:?}, expected {:?}", expected.shape())),
            (true, false) => Some(result.to_string()),
            _ => None,
        };
        self.add(Check {
            name,
            elements: values.len(),
            max_abs: result.max_abs,
            passed: detail.is_none(),
            detail,
        });
        Ok(())
    }
}
