//! Many queries: a block of keys and values of a head is packed once for all of them.
use super::{Job, Run, merge, split};
use crate::cpu::attend::{Packed, QUERIES};
use crate::dequant;
use firelight_tensor::DType;
use std::ops::Range;

/// Keys of a block.
const BLOCK: usize = 128;

#[derive(Default)]
pub(super) struct Scratch {
    packed: Packed,
    /// Keys and values of a block in f32.
    floats: Vec<f32>,
}

impl Job<'_> {
    /// The queries of one group of heads against `keys`.
    pub(super) fn many(
        &self,
        run: &Run,
        keys: Range<usize>,
        head: usize,
        scratch: &mut Scratch,
        found: &mut [f32],
    ) {
        let (hd, group) = (self.p.hd as usize, (self.p.nh / self.p.nkv) as usize);
        let queries = run.tokens.len() * group;
        let (sums, rest) = split(found, hd);
        let mut at = keys.start;
        while at < keys.end {
            let count = self.together(at, keys.end, BLOCK);
            self.pack(run, (at, count), head, scratch);
            for first in (0..queries).step_by(QUERIES) {
                let four = first..queries.min(first + QUERIES);
                self.four(run, (at, count), &mut scratch.packed, (head, four), (sums, rest));
            }
            at += count;
        }
    }

    /// Packs the keys and values from `at` on.
    fn pack(&self, run: &Run, (at, count): (usize, usize), head: usize, scratch: &mut Scratch) {
        let (hd, stride) = (self.p.hd as usize, (self.p.nkv * self.p.hd) as usize);
        let element = |j: usize| self.slot(run, at) + j * stride + head * hd;
        let Scratch { packed, floats } = scratch;
        if self.dtype == DType::F32 {
            let [kf, vf]: [&[f32]; 2] = self.cache.map(bytemuck::cast_slice);
            packed.fill(count, hd, |j| (&kf[element(j)..][..hd], &vf[element(j)..][..hd]));
            return;
        }
        floats.resize(2 * count * hd, 0.0);
        for (bytes, to) in self.cache.into_iter().zip(floats.chunks_exact_mut(count * hd)) {
            for (j, to) in to.chunks_exact_mut(hd).enumerate() {
                let [first, size] = [element(j), hd].map(|n| n / self.dtype.block_len() * self.dtype.block_bytes());
                // The lengths fit: nothing is refused.
                let _ = dequant::to_f32(self.dtype, &bytes[first..][..size], to);
            }
        }
        let (kf, vf) = floats.split_at(count * hd);
        packed.fill(count, hd, |j| (&kf[j * hd..][..hd], &vf[j * hd..][..hd]));
    }

    /// Four queries of a head with the keys from `at` on, that are packed.
    fn four(
        &self,
        run: &Run,
        (at, count): (usize, usize),
        packed: &mut Packed,
        (head, four): (usize, Range<usize>),
        (sums, rest): (&mut [f32], &mut [f32]),
    ) {
        let hd = self.p.hd as usize;
        let group = (self.p.nh / self.p.nkv) as usize;
        let sees = |i: usize| {
            let seen = self.keys(run.tokens.start + i / group);
            seen.start < at + count && seen.end > at
        };
        if !four.clone().any(sees) {
            return;
        }
        let last = four.end - 1;
        let q: [&[f32]; QUERIES] = std::array::from_fn(|i| self.query(run, head, (four.start + i).min(last)));
        packed.scores(self.isa, &q[..four.len()]);
        let mut weighed = [None; QUERIES];
        for (i, weighed) in weighed.iter_mut().enumerate().take(four.len()) {
            *weighed = self.weigh(run, four.start + i, at, packed.row(i));
        }
        packed.sum(self.isa);
        for (i, weighed) in weighed.into_iter().enumerate().take(four.len()) {
            let query = four.start + i;
            let sums = &mut sums[query * hd..][..hd];
            merge(self.isa, weighed, packed.result(i), sums, &mut rest[2 * query..][..2]);
        }
    }
}

