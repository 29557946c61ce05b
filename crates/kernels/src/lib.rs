#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod array;
mod buffer;
#[cfg(not(target_arch = "wasm32"))]
mod ceiling;
pub mod cpu;
pub mod dequant;
mod device;
mod error;
pub mod harness;
mod kernel;
mod memory;
mod recorder;
mod reference;
pub mod tune;
mod weight;

pub use array::Array;
#[cfg(not(target_arch = "wasm32"))]
pub use ceiling::Ceilings;
pub use cpu::{CpuOptions, Isa};
#[cfg(feature = "gpu")]
pub use device::{AdapterReport, GpuOptions, adapters};
pub use device::{Device, Rung, Span};
pub use error::{DeviceFault, Error, Result};
pub use firelight_tensor::{DType, Tolerance};
#[cfg(not(target_arch = "wasm32"))]
pub use kernel::Recorded;
pub use kernel::{
    Access, Call, Caps, Case, CpuCall, Fill, Kernel, Operand, Plan, View, ensure, words,
};
pub use memory::{Holder, MemoryReport};
#[cfg(not(target_arch = "wasm32"))]
pub use recorder::CallTime;
pub use recorder::{Cost, Dynamic, Recorder, Recording, Submission, Work};
pub use weight::{Corrections, LowRank, Shard, Site, Weight};

macro_rules! kernels {
    ($($(#[$only:meta])? $module:ident :: $kernel:ident),* $(,)?) => {
        $($(#[$only])? pub mod $module;)*
        /// Every built-in kernel.
        pub static KERNELS: &[&dyn Kernel] = &[$($(#[$only])? &$module::$kernel),*];
    };
}

kernels! {
    act::Act,
    add_bias::AddBias,
    add_layer_norm::AddLayerNorm,
    add_rms_norm::AddRmsNorm,
    add_scale::AddScale,
    attention::Attention,
    #[cfg(not(target_arch = "wasm32"))]
    attention_merge::AttentionMerge,
    #[cfg(not(target_arch = "wasm32"))]
    attention_part::AttentionPart,
    causal_conv1d::CausalConv1d,
    clamp::Clamp,
    columns::Columns,
    depthwise_conv1d::DepthwiseConv1d,
    embed::Embed,
    expert_linear::ExpertLinear,
    expert_route::ExpertRoute,
    gated_act::GatedAct,
    gated_delta_rule::GatedDeltaRule,
    gated_linear::GatedLinear,
    gated_rms_norm::GatedRmsNorm,
    layer_norm::LayerNorm,
    linear::Linear,
    linear_three::LinearThree,
    low_rank_add::LowRankAdd,
    mask_logits::MaskLogits,
    near_attention::NearAttention,
    rms_norm::RmsNorm,
    rope::Rope,
    rope_kv::RopeKv,
    sample::Sample,
    scale_shift::ScaleShift,
    softcap::Softcap,
    span_attention::SpanAttention,
    span_pool::SpanPool,
    unfold::Unfold,
    weighted_sum::WeightedSum,
}
