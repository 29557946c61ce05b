//! Many queries: a block of keys and values of a head is packed once for all of them.
use super::{Job, Run, merge, split};
#[cfg(not(target_arch = "wasm32"))]
use crate::cpu::attend::{Cells, Widen, dispatch, reads};
use crate::cpu::attend::{Packed, Rows, ask};
use crate::dequant;
use firelight_tensor::DType;
use std::ops::Range;

/// Keys of a block.
const BLOCK: usize = 256;

#[derive(Default)]
pub(super) struct Scratch {
    packed: Packed,
    /// Queries of the head, `[queries, HD]`.
    queries: Vec<f32>,
    /// Keys and values of a block in f32.
    floats: Vec<f32>,
    /// Maximum and total of each query's weights in a block.
    weighed: Vec<Option<(f32, f32)>>,
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
        let all = run.tokens.len() * group;
        scratch.queries.clear();
        for i in 0..all {
            scratch.queries.extend_from_slice(self.query(run, head, i));
        }
        let (sums, rest) = split(found, hd);
        let mut at = keys.start;
        while at < keys.end {
            let count = self.together(at, keys.end, BLOCK);
            self.pack(run, (at, count), head, scratch);
            // Neighbouring tokens see neighbouring keys: who sees some of these are neighbours, too.
            let sees = |t: &usize| {
                let seen = self.keys(*t);
                seen.start < at + count && seen.end > at
            };
            let mut tokens = run.tokens.clone();
            let first = tokens.find(sees).map_or(all, |t| (t - run.tokens.start) * group);
            let last = run.tokens.clone().rfind(sees).map_or(0, |t| (t + 1 - run.tokens.start) * group);
            let n = last.saturating_sub(first);
            let Scratch { packed, queries, weighed, .. } = scratch;
            packed.scores(self.isa, n, Rows { data: queries, first: first * hd, stride: hd });
            weighed.clear();
            for i in 0..n {
                // What is next comes meanwhile: a share with each query.
                let share = i * BLOCK / n..(i + 1) * BLOCK / n;
                self.ask_for(run, at + count, head, share);
                weighed.push(self.weigh(run, first + i, at, packed.row(i)));
            }
            packed.sum(self.isa, n);
            for (i, weighed) in weighed.iter().enumerate() {
                let query = first + i;
                let sums = &mut sums[query * hd..][..hd];
                merge(self.isa, *weighed, packed.result(i), sums, &mut rest[2 * query..][..2]);
            }
            at += count;
        }
    }

    /// Asks for keys and values of the `rows` after `at`, there or not.
    fn ask_for(&self, run: &Run, at: usize, head: usize, rows: Range<usize>) {
        let (hd, heads) = (self.p.hd as usize, self.p.nkv as usize);
        for element in rows.map(|j| self.slot(run, at) + (j * heads + head) * hd) {
            let [first, size] = self.bytes_of([element, hd]);
            for (cache, line) in self.cache.iter().flat_map(|c| (0..size).step_by(64).map(move |line| (c, line))) {
                ask(cache.as_ptr().wrapping_add(first + line));
            }
        }
    }

    /// How many bytes elements of a cache take.
    fn bytes_of(&self, elements: [usize; 2]) -> [usize; 2] {
        elements.map(|n| n / self.dtype.block_len() * self.dtype.block_bytes())
    }

    /// Packs the keys and values from `at` on.
    fn pack(&self, run: &Run, (at, count): (usize, usize), head: usize, scratch: &mut Scratch) {
        let (hd, heads) = (self.p.hd as usize, self.p.nkv as usize);
        let first = self.slot(run, at);
        let Scratch { packed, floats, .. } = scratch;
        if self.dtype == DType::F32 {
            let [k, v] = self.cache.map(|cache| Rows {
                data: bytemuck::cast_slice(cache),
                first: first + head * hd,
                stride: heads * hd,
            });
            return packed.fill(self.isa, (count, hd), k, v);
        }
        floats.resize(2 * count * hd, 0.0);
        for (bytes, to) in self.cache.into_iter().zip(floats.chunks_exact_mut(count * hd)) {
            #[cfg(not(target_arch = "wasm32"))]
            if reads(self.dtype) && hd.is_multiple_of(16) {
                let cells = Cells { bytes, dtype: self.dtype, first, count, heads, hd };
                dispatch(self.isa, Widen { cells, head, to });
                continue;
            }
            for (j, to) in to.chunks_exact_mut(hd).enumerate() {
                let element = first + (j * heads + head) * hd;
                let [first, size] = self.bytes_of([element, hd]);
                // The lengths fit: nothing is refused.
                let _ = dequant::to_f32(self.dtype, &bytes[first..][..size], to);
            }
        }
        let [k, v] = [0, count * hd].map(|first| Rows { data: floats, first, stride: hd });
        packed.fill(self.isa, (count, hd), k, v);
    }
}
