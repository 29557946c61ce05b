//! A part of attention: what some of the keys contribute, for a token that sees many.
//!
//! One workgroup per head reads all keys one after the other; with a long past that leaves most of a GPU idle. So the keys a token
//! sees are divided into `P` parts, in whole rounds of 128, and each is a workgroup of its own, which computes
//! `top = maxⱼ sⱼ`, `total = Σ exp(sⱼ − top)` and `acc = Σ exp(sⱼ − top) · vⱼ` over its keys, with the scores `s` of
//! [`attention`](crate::attention). [`attention_merge`](crate::attention_merge) puts the parts together. A part without keys has
//! `total = 0`. Up to four query heads over the same head of keys share what is read of K and V.
//! `P` depends on the cache's room, not on the position: a recording stays good until the cache grows, and a window shorter than the
//! cache has parts of the window only. Source: Dao et al. 2023 (Flash-Decoding), Milakov & Gimelshein 2018.

mod cases;
mod reference;

use crate::attention::{CACHES, FOUR_KEYS, FOUR_QUERIES, cells, check_cache, check_scale};
use crate::kernel::{Call, Caps, Case, Kernel, Operand, Plan, ensure, times};
use crate::Result;
use crate::tune::{On, Tunable};
use firelight_tensor::DType;

/// See the module's head.
#[derive(Debug)]
pub struct AttentionPart;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    /// Tokens.
    pub t: u32,
    /// Query heads.
    pub nh: u32,
    /// Key/value heads.
    pub nkv: u32,
    /// Elements of a head: a multiple of 4, at most 512.
    pub hd: u32,
    /// Positions a sequence has room for.
    pub cap: u32,
    /// Keys a token sees, itself included; 0: all.
    pub window: u32,
    /// Factor of the products.
    pub scale: f32,
    /// Soft cap of the scaled products; 0: none.
    pub softcap: f32,
    /// Parts, at most [`MOST_PARTS`].
    pub parts: u32,
}

/// Parts of one token's keys at most.
pub const MOST_PARTS: u32 = 32;
/// How keys are divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Division {
    /// Keys that are worth a part.
    pub keys: u32,
    /// Keys from which they are divided at all.
    pub from: u32,
}

impl Division {
    /// What suits a device, and caches of this type.
    pub(crate) fn of(caps: &Caps, cache: DType) -> Self {
        Division { keys: caps.tuned(&KEYS, cache), from: caps.tuned(&FROM, cache) }
    }
}

pub(crate) static KEYS: Tunable = Tunable {
    name: "attention_part.keys",
    what: "keys that are worth a part of their own",
    on: On::Gpu,
    operand: 1,
    default: 256,
    choices: &[128, 256, 512, 1024],
};

/// Two parts of a few hundred keys do not pay for the second dispatch.
pub(crate) static FROM: Tunable = Tunable {
    name: "attention_part.from",
    what: "keys from which they are divided among workgroups",
    on: On::Gpu,
    operand: 1,
    default: 1024,
    choices: &[512, 1024, 2048, 4096, u32::MAX],
};
/// Workgroups that keep a GPU busy; more parts than lead to them only add work.
const GROUPS: u32 = 256;

/// Into how many parts to divide the keys of `t` tokens with `nkv` heads of keys, each read for `sharing` query heads, where a token sees
/// at most `held` keys. 1: not at all.
pub(crate) fn parts(t: u32, nkv: u32, sharing: u32, held: u32, by: Division) -> u32 {
    let one = t.saturating_mul(nkv).saturating_mul(sharing.div_ceil(4)).max(1);
    if held < by.from {
        return 1;
    }
    (held / by.keys).clamp(1, MOST_PARTS).min(GROUPS.div_ceil(one))
}

const OPERANDS: &[Operand] = &[
    Operand::read("q", &[DType::F32], "[T, NH·HD]"),
    Operand::read("kc", CACHES, "[NSEQ, CAP, NKV, HD]"),
    Operand::read("vc", CACHES, "[NSEQ, CAP, NKV, HD]"),
    Operand::read("rows", &[DType::U32], "[T, 2]"),
    Operand::write("parts", &[DType::F32], "[T, NH, P, HD + 4]"),
];

impl Kernel for AttentionPart {
    fn name(&self) -> &'static str {
        "attention_part"
    }

    fn formula(&self) -> &'static str {
        "acc = Σⱼ exp(sⱼ − top) · vⱼ, top = maxⱼ sⱼ, total = Σⱼ exp(sⱼ − top) over a part of the keys, s = scale · q·k"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        let [q, kc, vc, rows, parts] = call.operands else {
            return Err(crate::Error::invalid("attention_part: expected 5 operands"));
        };
        ensure(self, (1..=MOST_PARTS).contains(&p.parts), || {
            format!("{} parts; expected 1 to {MOST_PARTS}", p.parts)
        })?;
        check_cache(self, (p.nh, p.nkv, p.hd, p.cap), (kc, vc))?;
        check_scale(self, p.scale)?;
        let len = times(&[p.t, p.nh, p.hd]);
        let listed = rows.elements() as u64 >= 2 * u64::from(p.t);
        ensure(self, q.elements() as u64 == len && listed, || {
            format!("q {:?}, rows {:?} for {} tokens", q.shape, rows.shape, p.t)
        })?;
        ensure(self, parts.elements() as u64 == times(&[p.t, p.nh, p.parts, p.hd + 4]), || {
            format!("parts {:?} as [{}, {}, {}, {} + 4]", parts.shape, p.t, p.nh, p.parts, p.hd)
        })?;
        let fours = (p.nh / p.nkv).div_ceil(4);
        let groups = times(&[p.t, p.nkv, fours, p.parts]);
        let mut plan = Plan::new("four_heads", include_str!("attention_part.wgsl"), groups, caps)?;
        plan.wgsl.extend([FOUR_QUERIES.into(), FOUR_KEYS.into()]);
        cells(&mut plan, kc.dtype);
        Ok(plan)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        reference::run(&call.params(), values);
    }

    fn work(&self, _: &Call<'_>) -> Option<crate::Work> {
        None
    }

    fn cases(&self) -> Vec<Case> {
        cases::cases()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pasts_are_not_divided_and_long_ones_as_far_as_it_pays() {
        let parts = |t, nkv, sharing, held| parts(t, nkv, sharing, held, Division::of(&Caps::FLOOR, DType::F32));
        // SmolLM2: nine query heads over three of keys.
        assert_eq!([256, 512, 1023].map(|held| parts(1, 3, 3, held)), [1, 1, 1]);
        assert_eq!([1024, 2048, 8192, 65_536].map(|held| parts(1, 3, 3, held)), [4, 8, 32, 32]);
        // Many heads are busy enough.
        assert_eq!(parts(3, 32, 1, 8192), 3);
        assert_eq!(parts(3, 512, 1, 8192), 1);
        assert_eq!(parts(u32::MAX, u32::MAX, u32::MAX, u32::MAX), 1);
    }
}
