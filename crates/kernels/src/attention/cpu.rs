//! A block of keys at a time against all queries that share them, with a running softmax: keys and values are read once, whatever
//! the number of heads over them, and nothing grows with the context.
//!
//! A task is a run of neighbouring tokens of one sequence, one head of keys, and a part of the keys where there are few tasks
//! otherwise; of a single token all heads, block by block, since in memory the heads of a key are neighbours. What a task found, `[queries, HD]` unnormalised with each query's maximum and total, is put together at the end
//! (Milakov & Gimelshein 2018; Dao et al. 2022).
use super::Params;
use crate::cpu::attend::{FewScores, FewSums, Packed, QUERIES, Rows, dispatch};
use crate::cpu::{Isa, vecmath};
use crate::kernel::CpuCall;
use firelight_tensor::{DType, convert};
use std::cell::Cell;
use std::ops::Range;

/// Tokens of a run at most.
const RUN: usize = 32;
/// Keys of a block.
const BLOCK: usize = 128;
/// Keys that are a task of their own at least.
const PART: usize = 4 * BLOCK;

thread_local! {
    static PACKED: Cell<(Packed, Vec<f32>)> = Cell::default();
}

struct Job<'a> {
    p: Params,
    isa: Isa,
    q: &'a [f32],
    /// Keys, values.
    cache: [&'a [u8]; 2],
    half: bool,
    /// `(sequence, position)` of each token, and its last key where `p.mutual`.
    rows: &'a [u32],
    ends: &'a [u32],
}

/// Neighbouring tokens of one sequence.
struct Run {
    tokens: Range<usize>,
    sequence: usize,
    /// What any of them sees.
    keys: Range<usize>,
}

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let job = Job {
        p,
        isa: c.cpu.isa,
        q: c.read(0),
        cache: [c.reads[1], c.reads[2]],
        half: c.call.operands[1].dtype == DType::F16,
        rows: c.read(3),
        ends: c.read(4),
    };
    let (nkv, hd, pool) = (p.nkv as usize, p.hd as usize, &c.cpu.pool);
    let group = (p.nh / p.nkv) as usize;
    let runs = job.runs();
    let longest = runs.iter().map(|r| r.keys.len()).max().unwrap_or(0);
    let most = runs.iter().map(|r| r.tokens.len()).max().unwrap_or(0) * group;
    // Few queries over whole vectors read the cache where it lies.
    let few = most <= QUERIES && hd.is_multiple_of(16);
    let heads = if few { nkv } else { 1 };
    let tasks = runs.len() * (nkv / heads);
    let parts = match pool.threads() {
        threads if threads > 1 && tasks < 4 * threads => {
            (4 * threads).div_ceil(tasks).min(longest / PART).max(1)
        }
        _ => 1,
    };
    // Of each head of a task: its queries' sums, then maximum and total of each.
    let size = most * (hd + 2);
    let mut found = vec![0f32; tasks * parts * heads * size];
    pool.for_chunks(&mut found, (heads * size).max(1), |task, found| {
        let (task, part) = (task / parts, task % parts);
        let (r, first) = (task / (nkv / heads), task % (nkv / heads) * heads);
        job.part(&runs[r], first, (part, parts), few, found.chunks_exact_mut(size));
    });
    let out: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    for (r, run) in runs.iter().enumerate() {
        for (i, t) in run.tokens.clone().enumerate() {
            for h in 0..p.nh as usize {
                let (head, query) = (h / group, i * group + h % group);
                let parts = (0..parts).map(|part| {
                    let task = (r * (nkv / heads) + head / heads) * parts + part;
                    let task = &found[(task * heads + head % heads) * size..][..size];
                    let (sums, rest) = task.split_at(most * hd);
                    (&sums[query * hd..][..hd], rest[2 * query], rest[2 * query + 1])
                });
                let largest = parts.clone().map(|(_, m, _)| m).fold(f32::NEG_INFINITY, f32::max);
                let out = &mut out[(t * p.nh as usize + h) * hd..][..hd];
                out.fill(0.0);
                let mut all = 0.0;
                for (sums, m, total) in parts.filter(|(.., total)| *total != 0.0) {
                    let factor = (m - largest).exp();
                    all += factor * total;
                    vecmath::axpy_f32(job.isa, factor, sums, out);
                }
                let inverse = 1.0 / all;
                out.iter_mut().for_each(|x| *x *= inverse);
            }
        }
    }
}

impl Job<'_> {
    /// The keys that token `t` sees.
    fn keys(&self, t: usize) -> Range<usize> {
        let (p, pos) = (&self.p, self.rows[2 * t + 1] as usize);
        let cap = p.cap as usize;
        let held = if p.window > 0 { cap.min(p.window as usize) } else { cap };
        let begin = (pos + 1).saturating_sub(held);
        let end = match p.mutual > 0 {
            true => (pos + 1).max(self.ends[t] as usize).min(begin + cap),
            false => pos + 1,
        };
        begin..end
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for t in 0..self.p.t as usize {
            let (sequence, keys) = (self.rows[2 * t] as usize, self.keys(t));
            match runs.last_mut() {
                Some(run) if run.sequence == sequence && run.tokens.len() < RUN => {
                    run.tokens.end = t + 1;
                    run.keys = run.keys.start.min(keys.start)..run.keys.end.max(keys.end);
                }
                _ => runs.push(Run { tokens: t..t + 1, sequence, keys }),
            }
        }
        runs
    }

    /// Keys or values of `count` positions from `first` on, in neighbouring slots, of one head.
    fn slots(&self, which: usize, run: &Run, head: usize, first: usize, count: usize) -> Rows<'_> {
        let (cap, nkv, hd) = (self.p.cap as usize, self.p.nkv as usize, self.p.hd as usize);
        Rows {
            bytes: self.cache[which],
            half: self.half,
            first: ((run.sequence * cap + first % cap) * nkv + head) * hd,
            stride: nkv * hd,
            count,
            hd,
        }
    }

    /// Part `part` of `parts` of the keys of a run, against the queries of the groups of heads from `first` on, one for each of `found`.
    fn part<'f>(
        &self,
        run: &Run,
        first: usize,
        (part, parts): (usize, usize),
        few: bool,
        found: impl Iterator<Item = &'f mut [f32]>,
    ) {
        let (hd, cap) = (self.p.hd as usize, self.p.cap as usize);
        let group = (self.p.nh / self.p.nkv) as usize;
        let queries = run.tokens.len() * group;
        let mut heads: Vec<_> = found.map(|f| f.split_at_mut(f.len() / (hd + 2) * hd)).collect();
        for (_, rest) in &mut heads {
            rest.chunks_exact_mut(2).for_each(|r| r.copy_from_slice(&[f32::NEG_INFINITY, 0.0]));
        }
        let all = run.keys.len();
        let keys = run.keys.start + all * part / parts..run.keys.start + all * (part + 1) / parts;
        let (mut packed, mut floats) = PACKED.take();
        let mut at = keys.start;
        while at < keys.end {
            let count = BLOCK.min(keys.end - at).min(cap - at % cap);
            for (head, (sums, rest)) in (first..).zip(&mut heads) {
                let [k, v] = [0, 1].map(|which| self.slots(which, run, head, at, count));
                if few {
                    self.few(run, at, [k, v], (head, queries), (sums, rest));
                    continue;
                }
                self.pack(&mut packed, &mut floats, [k, v]);
                for first in (0..queries).step_by(QUERIES) {
                    let four = first..queries.min(first + QUERIES);
                    self.many(run, at, count, &mut packed, (head, four), (sums, rest));
                }
            }
            at += count;
        }
        PACKED.set((packed, floats));
    }

    fn query(&self, run: &Run, head: usize, i: usize) -> &[f32] {
        let (hd, group) = (self.p.hd as usize, (self.p.nh / self.p.nkv) as usize);
        let token = run.tokens.start + i / group;
        &self.q[(token * self.p.nh as usize + head * group + i % group) * hd..][..hd]
    }

    /// Turns the scores of query `i` for the keys from `at` on into weights; gives their maximum and total, or `None` if it sees none.
    fn weigh(&self, run: &Run, i: usize, at: usize, scores: &mut [f32]) -> Option<(f32, f32)> {
        let group = (self.p.nh / self.p.nkv) as usize;
        let seen = self.keys(run.tokens.start + i / group);
        let (begin, end) = (seen.start.saturating_sub(at), seen.end.saturating_sub(at).min(scores.len()));
        if begin >= end {
            scores.fill(0.0);
            return None;
        }
        scores[..begin].fill(f32::NEG_INFINITY);
        scores[end..].fill(f32::NEG_INFINITY);
        let mut scale = self.p.scale;
        if self.p.softcap > 0.0 {
            let cap = self.p.softcap;
            scores[begin..end].iter_mut().for_each(|s| *s = cap * (*s * scale / cap).tanh());
            scale = 1.0;
        }
        let largest = scale * vecmath::max_f32(self.isa, &scores[begin..end]);
        Some((largest, vecmath::softmax_sum(self.isa, scale, scores)))
    }

    fn few(
        &self,
        run: &Run,
        at: usize,
        [k, v]: [Rows<'_>; 2],
        (head, queries): (usize, usize),
        (sums, rest): (&mut [f32], &mut [f32]),
    ) {
        let (hd, count) = (k.hd, k.count);
        let q: [&[f32]; QUERIES] = std::array::from_fn(|i| self.query(run, head, i.min(queries - 1)));
        let mut scores = [0f32; QUERIES * BLOCK];
        let scores_of = match queries {
            1 => scores_of::<1>,
            2 => scores_of::<2>,
            3 => scores_of::<3>,
            _ => scores_of::<QUERIES>,
        };
        scores_of(self.isa, &q, k, &mut scores);
        let mut weighed = [None; QUERIES];
        for (i, weighed) in weighed.iter_mut().enumerate().take(queries) {
            *weighed = self.weigh(run, i, at, &mut scores[i * BLOCK..][..count]);
        }
        // A head has at most 512 elements.
        let mut block = [0f32; QUERIES * 512];
        let sums_of = match queries {
            1 => sums_of::<1>,
            2 => sums_of::<2>,
            3 => sums_of::<3>,
            _ => sums_of::<QUERIES>,
        };
        sums_of(self.isa, &scores, v, &mut block);
        for (i, weighed) in weighed.into_iter().enumerate().take(queries) {
            let block = &block[i * hd..][..hd];
            merge(self.isa, weighed, block, &mut sums[i * hd..][..hd], &mut rest[2 * i..][..2]);
        }
    }

    /// Packs a block.
    fn pack(&self, packed: &mut Packed, floats: &mut Vec<f32>, [k, v]: [Rows<'_>; 2]) {
        let (hd, count) = (k.hd, k.count);
        let element = |rows: &Rows<'_>, j: usize| rows.first + j * rows.stride;
        if !self.half {
            let [kf, vf]: [&[f32]; 2] = [k, v].map(|rows| bytemuck::cast_slice(rows.bytes));
            packed.fill(count, hd, |j| (&kf[element(&k, j)..][..hd], &vf[element(&v, j)..][..hd]));
            return;
        }
        floats.resize(2 * count * hd, 0.0);
        for (rows, to) in [k, v].into_iter().zip(floats.chunks_exact_mut(count * hd)) {
            for (j, to) in to.chunks_exact_mut(hd).enumerate() {
                let from = &rows.bytes[2 * element(&rows, j)..][..2 * hd];
                // The lengths fit: nothing is refused.
                let _ = convert::f16_to_f32(from, to);
            }
        }
        let (kf, vf) = floats.split_at(count * hd);
        packed.fill(count, hd, |j| (&kf[j * hd..][..hd], &vf[j * hd..][..hd]));
    }

    fn many(
        &self,
        run: &Run,
        at: usize,
        count: usize,
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

/// The scores of `N` queries with a block's keys, [`BLOCK`] apart.
fn scores_of<const N: usize>(isa: Isa, q: &[&[f32]; QUERIES], k: Rows<'_>, scores: &mut [f32]) {
    let q = std::array::from_fn::<_, N, _>(|i| q[i]);
    dispatch(isa, FewScores { q, k, scores, step: BLOCK });
}

/// The sums of a block's values with the weights of `N` queries.
fn sums_of<const N: usize>(isa: Isa, weights: &[f32], v: Rows<'_>, sums: &mut [f32]) {
    dispatch(isa, FewSums::<N> { weights, step: BLOCK, v, sums });
}

/// Adds what a block gave a query, `block` with its maximum and total, to what was found before.
fn merge(isa: Isa, weighed: Option<(f32, f32)>, block: &[f32], sums: &mut [f32], rest: &mut [f32]) {
    let (Some((largest, total)), [most, all]) = (weighed, rest) else {
        return;
    };
    if largest > *most {
        let factor = (*most - largest).exp();
        sums.iter_mut().for_each(|s| *s *= factor);
        *all *= factor;
        *most = largest;
    }
    let factor = (largest - *most).exp();
    *all += factor * total;
    vecmath::axpy_f32(isa, factor, block, sums);
}
