//! Parts that more than one family of decoders has: the vocabulary at both ends, the residual stream, rotary attention over the
//! cache, the gated MLP. What a family has of its own is in its file.

use super::{Inputs, LayerCache, Logits};
use crate::Result;
use crate::cache::Cache;
use crate::loader::{Linear, Loader, RmsNorm};
use firelight_kernels::act::Activation;
use firelight_kernels::attention::{AttentionArgs, attention};
use firelight_kernels::gated_act::gated_act;
use firelight_kernels::rope_kv::{Pairing, RopeKvArgs, rope_kv};
use firelight_kernels::{Array, Recorder, Weight, embed, linear};

/// The embedding, and the head that may be the same matrix.
pub(super) struct Vocabulary {
    embed_tokens: Weight,
    /// `None`: tied to the embedding, without its scale.
    lm_head: Option<Weight>,
    /// Factor of the embeddings.
    scale: f32,
}

impl Vocabulary {
    /// `vocab` rows of `d` elements from `name`, and those of `lm_head` if the file has it.
    pub(super) fn load(
        l: &mut Loader<'_>,
        name: &str,
        vocab: usize,
        d: usize,
        scale: f32,
    ) -> Result<Self> {
        let rows = ("vocab_size", vocab);
        let embed_tokens = l.table(name, rows, d)?;
        let lm_head = match l.has("lm_head.weight") {
            true => Some(l.table("lm_head", rows, d)?),
            false => None,
        };
        Ok(Vocabulary {
            embed_tokens,
            lm_head,
            scale,
        })
    }

    /// The residual stream of a step's tokens, f32 `[T, D]`.
    pub(super) fn embed(&self, rec: &mut Recorder, inputs: Inputs<'_>) -> Result<Array> {
        inputs.embed(rec, &self.embed_tokens, self.scale)
    }

    /// Logits f32 `[R, V]` of the wanted rows of the normalised stream `x`.
    pub(super) fn logits(
        &self,
        rec: &mut Recorder,
        x: Array,
        wanted: Logits<'_>,
    ) -> Result<Option<Array>> {
        let x = match wanted {
            Logits::None => return Ok(None),
            Logits::All => x,
            Logits::Rows(rows) => embed::embed(rec, rows, &Weight::from_array(&x)?, 1.0)?,
        };
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        Ok(Some(linear::linear(rec, &x, head)?))
    }
}

/// The residual stream between two branches. A branch's result is added where the next norm reads the stream: one pass for both.
pub(super) struct Stream {
    h: Array,
    branch: Option<Array>,
}

/// A norm that can add a branch to the stream before it reads it.
pub(super) trait Norm {
    /// Normalises the rows of `x`.
    fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array>;
    /// `h += x`, then the norm of `h`.
    fn add_forward(&self, rec: &mut Recorder, h: &Array, x: &Array) -> Result<Array>;
}

macro_rules! norm {
    ($($norm:ty),*) => { $(
        impl Norm for $norm {
            fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
                <$norm>::forward(self, rec, x)
            }
            fn add_forward(&self, rec: &mut Recorder, h: &Array, x: &Array) -> Result<Array> {
                <$norm>::add_forward(self, rec, h, x)
            }
        }
    )* };
}
norm!(RmsNorm, crate::norm::LayerNorm);

impl Stream {
    /// A stream that starts with `h`.
    pub(super) fn new(h: Array) -> Self {
        Stream { h, branch: None }
    }

    /// `norm` of the stream with all branches added.
    pub(super) fn norm(&mut self, rec: &mut Recorder, norm: &impl Norm) -> Result<Array> {
        match self.branch.take() {
            Some(branch) => norm.add_forward(rec, &self.h, &branch),
            None => norm.forward(rec, &self.h),
        }
    }

    /// What was added up so far. Written over where it stands.
    #[cfg(feature = "vision")]
    pub(super) fn sum(self, rec: &mut Recorder) -> Result<Array> {
        if let Some(branch) = &self.branch {
            firelight_kernels::add_bias::add_bias(rec, &self.h, branch)?;
        }
        Ok(self.h)
    }

    /// Adds what a branch gave.
    pub(super) fn add(&mut self, branch: Array) {
        self.branch = Some(branch);
    }
}

/// Sizes of an attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Elements of all queries of a token.
    pub(super) fn queries(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Elements of all keys of a token.
    pub(super) fn keys(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// What a layer keeps of a sequence of which a token sees `window` keys; 0: all.
    pub(super) fn cached(&self, window: u32) -> LayerCache {
        LayerCache::attention(self.num_key_value_heads, self.head_dim, window as usize)
    }
}

/// Rotary grouped-query attention over the cache.
pub(super) struct Attention {
    pub q_proj: Linear,
    pub k_proj: Linear,
    pub v_proj: Linear,
    pub o_proj: Linear,
    /// Of queries and keys, head by head, before they are turned.
    pub norms: Option<(RmsNorm, RmsNorm)>,
    /// The result is multiplied by the sigmoid of this.
    pub gate_proj: Option<Linear>,
}

/// How an attention looks at the cache.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub cache: &'a Cache,
    /// The layer of the cache.
    pub layer: usize,
    /// The rotary table.
    pub rope: usize,
    pub pairing: Pairing,
    /// Keys a token sees; 0: all.
    pub window: u32,
    /// Factor of the scores.
    pub scale: f32,
}

/// Queries over the cache, after their keys and values were written into it; queries and keys are turned.
pub(super) fn cached(
    rec: &mut Recorder,
    [q, k, v]: [&Array; 3],
    rows: &Array,
    view: View<'_>,
) -> Result<Array> {
    let (k_cache, v_cache) = view.cache.layer(view.layer);
    let args = RopeKvArgs {
        rows,
        rope: view.cache.rope(view.rope),
        k_cache,
        v_cache,
        pairing: view.pairing,
    };
    rope_kv(rec, q, k, v, args)?;
    let args = AttentionArgs {
        rows,
        k_cache,
        v_cache,
        window: view.window,
        scale: view.scale,
        softcap: 0.0,
        ends: None,
    };
    Ok(attention(rec, q, args)?)
}

impl Attention {
    /// The norms of queries and keys that every family calls `q_norm` and `k_norm`.
    pub(super) fn norms(
        l: &mut Loader<'_>,
        name: &str,
        head_dim: usize,
        eps: f32,
        offset: f32,
    ) -> Result<(RmsNorm, RmsNorm)> {
        let mut norm = |own: &str| l.rms_norm(&format!("{name}.{own}"), head_dim, eps, offset);
        Ok((norm("q_norm")?, norm("k_norm")?))
    }

    /// The step `inputs`: `x` `[T, D]` to `[T, D]`, and its keys and values into the cache.
    pub(super) fn forward(
        &self,
        rec: &mut Recorder,
        x: &Array,
        inputs: Inputs<'_>,
        view: View<'_>,
    ) -> Result<Array> {
        let [mut q, mut k, v] =
            Linear::forward_three(rec, x, [&self.q_proj, &self.k_proj, &self.v_proj])?;
        if let Some((q_norm, k_norm)) = &self.norms {
            q = q_norm.forward(rec, &q)?;
            k = k_norm.forward(rec, &k)?;
        }
        let mut out = cached(rec, [&q, &k, &v], inputs.rows, view)?;
        drop((k, v));
        drop(q);
        if let Some(gate_proj) = &self.gate_proj {
            let gate = gate_proj.forward(rec, x)?;
            out = gated_act(rec, &gate, &out, Activation::Sigmoid)?;
        }
        self.o_proj.forward(rec, &out)
    }
}

/// `down(act(gate) · up)`.
pub(super) struct GatedMlp {
    pub gate_proj: Linear,
    pub up_proj: Linear,
    pub down_proj: Linear,
    pub act: Activation,
}

impl GatedMlp {
    /// Three matrices between `d` and `f` elements.
    pub(super) fn load(
        l: &mut Loader<'_>,
        name: &str,
        (d, f): (usize, usize),
        act: Activation,
    ) -> Result<Self> {
        Ok(GatedMlp {
            gate_proj: l.linear(&format!("{name}.gate_proj"), f, d)?,
            up_proj: l.linear(&format!("{name}.up_proj"), f, d)?,
            down_proj: l.linear(&format!("{name}.down_proj"), d, f)?,
            act,
        })
    }

    /// `[T, D]` to `[T, D]`.
    pub(super) fn forward(&self, rec: &mut Recorder, x: &Array) -> Result<Array> {
        let h = Linear::forward_gated(rec, x, &self.gate_proj, &self.up_proj, self.act)?;
        self.down_proj.forward(rec, &h)
    }
}
