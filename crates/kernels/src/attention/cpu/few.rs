//! Few queries: keys and values are read where they lie, all heads of a position before the next one.
use super::{Job, Run, merge, split};
use crate::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::attend::DotsScratch;
use crate::cpu::attend::{Cells, FewScores, FewSums, QUERIES, dispatch};
use std::ops::Range;

/// Keys of a block.
const BLOCK: usize = 256;

#[derive(Default)]
pub(super) struct Scratch {
    /// `[NKV, queries of a head, HD]`.
    queries: Vec<f32>,
    /// `[NKV, queries of a head, BLOCK]`.
    scores: Vec<f32>,
    /// As `queries`: the sums of a block's values.
    sums: Vec<f32>,
    /// Maximum and total of each query's weights in a block.
    weighed: Vec<Option<(f32, f32)>>,
    #[cfg(target_arch = "x86_64")]
    dots: DotsScratch,
}

impl Job<'_> {
    /// The queries of all heads against `keys`.
    pub(super) fn few(
        &self,
        run: &Run,
        keys: Range<usize>,
        scratch: &mut Scratch,
        (found, size): (&mut [f32], usize),
    ) {
        let (hd, heads) = (self.p.hd as usize, self.p.nkv as usize);
        let there = run.tokens.len() * (self.p.nh / self.p.nkv) as usize;
        // In browsers, where size counts, there is one form for several queries: the last is repeated.
        let n = match there {
            2 | 3 if cfg!(target_arch = "wasm32") => QUERIES,
            n => n,
        };
        let Scratch { queries, scores, sums, weighed, .. } = scratch;
        queries.clear();
        for head in 0..heads {
            for i in 0..n {
                queries.extend_from_slice(self.query(run, head, i.min(there - 1)));
            }
        }
        scores.resize(heads * n * BLOCK, 0.0);
        sums.resize(heads * n * hd, 0.0);
        let (scores_of, sums_of): (ScoresOf, SumsOf) = match n {
            1 => (scores_of::<1>, sums_of::<1>),
            #[cfg(not(target_arch = "wasm32"))]
            2 => (scores_of::<2>, sums_of::<2>),
            #[cfg(not(target_arch = "wasm32"))]
            3 => (scores_of::<3>, sums_of::<3>),
            _ => (scores_of::<QUERIES>, sums_of::<QUERIES>),
        };
        #[cfg(target_arch = "x86_64")]
        if let Some(dots) = self.dots {
            dots.set_queries(&mut scratch.dots, queries);
        }
        let mut at = keys.start;
        while at < keys.end {
            let count = self.together(at, keys.end, BLOCK);
            let [k, v] = self.cache.map(|bytes| Cells {
                bytes,
                dtype: self.dtype,
                first: self.slot(run, at),
                count,
                heads,
                hd,
            });
            #[cfg(target_arch = "x86_64")]
            match self.dots {
                Some(dots) => dots.scores(&mut scratch.dots, n, k, scores, BLOCK),
                None => scores_of(self.isa, queries, k, scores),
            }
            #[cfg(not(target_arch = "x86_64"))]
            scores_of(self.isa, queries, k, scores);
            weighed.clear();
            for (i, scores) in scores.chunks_exact_mut(BLOCK).enumerate() {
                weighed.push(self.weigh(run, (i % n).min(there - 1), at, &mut scores[..count]));
            }
            #[cfg(target_arch = "x86_64")]
            match self.dots {
                Some(dots) => dots.sums(&mut scratch.dots, n, (scores, BLOCK), v, sums),
                None => sums_of(self.isa, scores, v, sums),
            }
            #[cfg(not(target_arch = "x86_64"))]
            sums_of(self.isa, scores, v, sums);
            for (i, (weighed, block)) in weighed.iter().zip(sums.chunks_exact(hd)).enumerate() {
                if i % n >= there {
                    continue;
                }
                let (sums, rest) = split(&mut found[i / n * size..][..size], hd);
                let (sums, rest) = (&mut sums[i % n * hd..][..hd], &mut rest[i % n * 2..][..2]);
                merge(self.isa, *weighed, block, sums, rest);
            }
            at += count;
        }
    }
}

type ScoresOf = fn(Isa, &[f32], Cells<'_>, &mut [f32]);
type SumsOf = fn(Isa, &[f32], Cells<'_>, &mut [f32]);

fn scores_of<const N: usize>(isa: Isa, q: &[f32], k: Cells<'_>, scores: &mut [f32]) {
    dispatch(isa, FewScores::<N> { q, k, scores, step: BLOCK });
}

fn sums_of<const N: usize>(isa: Isa, weights: &[f32], v: Cells<'_>, sums: &mut [f32]) {
    dispatch(isa, FewSums::<N> { weights, step: BLOCK, v, sums });
}
