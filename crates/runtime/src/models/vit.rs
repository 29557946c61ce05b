//! The layers most vision towers share, and CLIP's and SigLIP's text towers: pre-norm attention and a two-layer MLP.
//!
//! Dosovitskiy et al. 2021; reference `transformers/models/siglip/modeling_siglip.py` and `clip/modeling_clip.py` 5.23.0. A family's file
//! says where its numbers are and what comes before and after.

use super::bert::{activation, head_dim};
use super::parts::Stream;
use crate::Result;
use crate::checkpoint::Fields;
use crate::loader::{Linear, Loader};
use crate::norm::LayerNorm;
use firelight_kernels::act::Activation;
use firelight_kernels::span_attention::{Part, SpanAttentionArgs, span_attention};
use firelight_kernels::{Array, Recorder};

/// The numbers of a tower, under upstream's names.
#[derive(Clone, Debug)]
pub(super) struct VitConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f32,
    head_dim: usize,
}

/// What upstream's configuration class takes for a number that is not given.
pub(super) struct VitDefaults {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub hidden_act: &'static str,
    pub layer_norm_eps: f64,
}

impl VitConfig {
    pub(super) fn read(c: &Fields<'_>, d: &VitDefaults) -> Result<Self> {
        let size =
            |key: &str, default| Ok::<_, crate::Error>(c.maybe_size(key)?.unwrap_or(default));
        let (hidden_size, heads) = (
            size("hidden_size", d.hidden_size)?,
            size("num_attention_heads", d.num_attention_heads)?,
        );
        let layers = size("num_hidden_layers", d.num_hidden_layers)?;
        let head_dim = head_dim(
            layers,
            ("hidden_size", hidden_size),
            ("num_attention_heads", heads),
        )?;
        Ok(VitConfig {
            hidden_size,
            intermediate_size: size("intermediate_size", d.intermediate_size)?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            hidden_act: activation(c, "hidden_act", d.hidden_act)?,
            layer_norm_eps: c.number("layer_norm_eps")?.unwrap_or(d.layer_norm_eps) as f32,
            head_dim,
        })
    }
}

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
}

struct Block {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn load(l: &mut Loader<'_>, c: &VitConfig, name: &str) -> Result<Self> {
        let (d, f, eps) = (c.hidden_size, c.intermediate_size, c.layer_norm_eps);
        let mut linear = |part: &str| l.linear(&format!("{name}.self_attn.{part}"), d, d);
        let self_attn = Attention {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
        };
        Ok(Block {
            layer_norm1: l.layer_norm(&format!("{name}.layer_norm1"), d, eps)?,
            self_attn,
            layer_norm2: l.layer_norm(&format!("{name}.layer_norm2"), d, eps)?,
            fc1: l.linear(&format!("{name}.mlp.fc1"), f, d)?,
            fc2: l.linear(&format!("{name}.mlp.fc2"), d, f)?,
        })
    }
}

/// The layers on a device.
pub(super) struct Vit {
    config: VitConfig,
    layers: Vec<Block>,
}

impl Vit {
    /// Loads `name.layers.0` and what follows.
    pub(super) fn load(l: &mut Loader<'_>, config: VitConfig, name: &str) -> Result<Self> {
        let layers = (0..config.num_hidden_layers)
            .map(|i| Block::load(l, &config, &format!("{name}.layers.{i}")))
            .collect::<Result<_>>()?;
        Ok(Vit { config, layers })
    }

    /// Records the layers on `stream` (f32 `[T, D]`). `spans` (u32 `[T, 2]`) are the tokens that each one sees.
    pub(super) fn forward(
        &self,
        rec: &mut Recorder,
        stream: &mut Stream,
        spans: &Array,
    ) -> Result<()> {
        let c = &self.config;
        for block in &self.layers {
            let x = stream.norm(rec, &block.layer_norm1)?;
            let attn = &block.self_attn;
            let q = attn.q_proj.forward(rec, &x)?;
            let k = attn.k_proj.forward(rec, &x)?;
            let v = attn.v_proj.forward(rec, &x)?;
            let args = SpanAttentionArgs {
                q: Part::whole(&q),
                k: Part::whole(&k),
                v: Part::whole(&v),
                spans,
                heads: c.num_attention_heads,
                kv_heads: c.num_attention_heads,
                head_dim: c.head_dim,
                scale: (c.head_dim as f32).powf(-0.5),
            };
            let out = span_attention(rec, args)?;
            drop((q, k, v, x));
            stream.add(attn.out_proj.forward(rec, &out)?);
            let x = stream.norm(rec, &block.layer_norm2)?;
            let f = block.fc1.forward_act(rec, &x, c.hidden_act)?;
            stream.add(block.fc2.forward(rec, &f)?);
        }
        Ok(())
    }
}
