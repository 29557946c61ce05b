//! What the models that hear share: attention over a clip, over what was said before, and over what was heard.

use super::LayerCache;
use super::parts::{View, cached};
use crate::cache::Cache;
use crate::loader::{Linear, Loader};
use crate::speech::SpeechInputs;
use crate::{Error, Result};
use firelight_kernels::rope_kv::Pairing;
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::{Array, Recorder, Weight};

/// Heads of an attention, and how the text's positions turn them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Elements of a head in the checkpoint.
    pub(super) dim: usize,
    pub(super) pairing: Pairing,
}

impl Heads {
    /// Elements of a head as the kernels take it: filled up with zeros, which change no product.
    pub(super) fn padded(&self) -> usize {
        match self.dim.is_multiple_of(4) {
            true => self.dim,
            false => self.dim.next_multiple_of(8),
        }
    }

    /// What a layer of the decoder keeps.
    pub(super) fn kept(&self) -> LayerCache {
        LayerCache::Attention {
            kv_heads: self.keys,
            head_dim: self.padded(),
        }
    }
}

/// Projections to heads and back.
pub(super) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    output: Linear,
    heads: Heads,
}

impl Attention {
    /// `NAME.q_proj`, `k_proj`, `v_proj` and `NAME.OUTPUT` over `d` elements.
    pub(super) fn load(
        l: &mut Loader<'_>,
        d: usize,
        heads: Heads,
        (name, output): (&str, &str),
    ) -> Result<Self> {
        let mut rows = |own: &str, n: usize| -> Result<Linear> {
            let (name, wide) = (format!("{name}.{own}"), heads.padded());
            if wide == heads.dim {
                return l.linear(&name, n * wide, d);
            }
            let values = l.host(&format!("{name}.weight"), &[n * heads.dim, d])?;
            made(l, &spread(&values, heads.dim * d, wide * d), [n * wide, d])
        };
        Ok(Attention {
            q_proj: rows("q_proj", heads.queries)?,
            k_proj: rows("k_proj", heads.keys)?,
            v_proj: rows("v_proj", heads.keys)?,
            output: {
                let (name, wide) = (format!("{name}.{output}"), heads.padded());
                let columns = heads.queries * heads.dim;
                if wide == heads.dim {
                    l.linear(&name, d, columns)?
                } else {
                    let values = l.host(&format!("{name}.weight"), &[d, columns])?;
                    let values = spread(&values, heads.dim, wide);
                    made(l, &values, [d, heads.queries * wide])?
                }
            },
            heads,
        })
    }

    fn scale(&self) -> f32 {
        (self.heads.dim as f32).powf(-0.5)
    }

    /// Queries, keys and values.
    pub(super) fn project(&self, rec: &mut Recorder, x: &Array) -> Result<[Array; 3]> {
        let q = self.q_proj.forward(rec, x)?;
        let [k, v] = self.seen(rec, x)?;
        Ok([q, k, v])
    }

    /// Keys and values of states that others look at.
    pub(super) fn seen(&self, rec: &mut Recorder, states: &Array) -> Result<[Array; 2]> {
        Ok([
            self.k_proj.forward(rec, states)?,
            self.v_proj.forward(rec, states)?,
        ])
    }

    /// Attention with `q` over keys and values that lie in rows, each token over its span.
    pub(super) fn over(
        &self,
        rec: &mut Recorder,
        q: &Array,
        [k, v]: [&Array; 2],
        spans: &Array,
    ) -> Result<Array> {
        let args = SpanAttentionArgs {
            q: Part::whole(q),
            k: Part::whole(k),
            v: Part::whole(v),
            spans,
            heads: self.heads.queries,
            kv_heads: self.heads.keys,
            head_dim: self.heads.padded(),
            scale: self.scale(),
        };
        let out = span_attention(rec, args)?;
        self.output.forward(rec, &out)
    }

    /// Each token over those before it, through the cache.
    pub(super) fn causal(
        &self,
        rec: &mut Recorder,
        x: &Array,
        rows: &Array,
        (cache, layer): (&Cache, usize),
    ) -> Result<Array> {
        let [q, k, v] = self.project(rec, x)?;
        let view = View {
            cache,
            layer,
            rope: 0,
            pairing: self.heads.pairing,
            window: 0,
            scale: self.scale(),
        };
        let out = cached(rec, [&q, &k, &v], rows, view)?;
        self.output.forward(rec, &out)
    }

    /// Each token over what was heard; its queries are added to `queries` if these are asked for.
    pub(super) fn cross(
        &self,
        rec: &mut Recorder,
        x: &Array,
        (inputs, layer): (&SpeechInputs<'_>, usize),
        queries: Option<&mut Vec<Array>>,
    ) -> Result<Array> {
        let Some([k, v]) = inputs.cross.get(layer) else {
            return Err(Error::invalid(format!("no keys of layer {layer}")));
        };
        let q = self.q_proj.forward(rec, x)?;
        let out = self.over(rec, &q, [k, v], inputs.spans)?;
        if let Some(all) = queries {
            all.push(q);
        }
        Ok(out)
    }
}

/// Pieces of `narrow` values as pieces of `wide` ones, zeros behind each.
fn spread(values: &[f32], narrow: usize, wide: usize) -> Vec<f32> {
    let mut all = vec![0.0; values.len() / narrow * wide];
    for (from, to) in values.chunks(narrow).zip(all.chunks_mut(wide)) {
        to[..from.len()].copy_from_slice(from);
    }
    all
}

/// A matrix made on the host.
fn made(l: &Loader<'_>, values: &[f32], shape: [usize; 2]) -> Result<Linear> {
    let array = l.upload(values)?.reshape(&shape)?;
    Ok(Linear {
        weight: Weight::from_array(&array)?,
        bias: None,
    })
}
