//! A block of keys at a time against all queries that share them, with a running softmax: keys and values are read once, whatever
//! the number of heads over them, and nothing grows with the context.
//!
//! A task is a run of neighbouring tokens of one sequence, one head of keys, and a part of the keys where there are few tasks
//! otherwise; of a single token all heads, block by block, since in memory the heads of a key are neighbours. What a task found, `[queries, HD]` unnormalised with each query's maximum and total, is put together at the end
//! (Milakov & Gimelshein 2018; Dao et al. 2022).
mod few;
mod many;

use super::Params;
#[cfg(target_arch = "x86_64")]
use crate::cpu::attend::Dots;
use crate::cpu::attend::{QUERIES, reads};
use crate::cpu::{Isa, vecmath};
use crate::kernel::CpuCall;
use firelight_tensor::DType;
use std::cell::Cell;
use std::ops::Range;

/// Tokens of a run at most, where short ones are wanted and where long ones are.
const SHORT: usize = 16;
const LONG: usize = 64;
/// Queries of a head that a run has at most, unless it is short.
const TOGETHER: usize = 192;
/// Keys that are a task of their own at least.
const PART: usize = 512;

/// What a thread computes in; nothing is allocated per call once it has grown.
#[derive(Default)]
struct Scratch {
    few: few::Scratch,
    many: many::Scratch,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

struct Job<'a> {
    p: Params,
    isa: Isa,
    q: &'a [f32],
    /// Keys, values.
    cache: [&'a [u8]; 2],
    dtype: DType,
    #[cfg(target_arch = "x86_64")]
    dots: Option<Dots>,
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
        dtype: c.call.operands[1].dtype,
        #[cfg(target_arch = "x86_64")]
        dots: Dots::of(c.cpu.isa, c.call.operands[1].dtype).filter(|_| !c.cpu.exact),
        rows: c.read(3),
        ends: c.read(4),
    };
    let (nkv, hd, pool) = (p.nkv as usize, p.hd as usize, &c.cpu.pool);
    let group = (p.nh / p.nkv) as usize;
    // Long runs read keys less often, short ones are shared out better.
    let length = (p.t as usize * nkv / (4 * pool.threads())).min(TOGETHER / group);
    let runs = job.runs(length.clamp(SHORT, LONG));
    let longest = runs.iter().map(|r| r.keys.len()).max().unwrap_or(0);
    let most = runs.iter().map(|r| r.tokens.len()).max().unwrap_or(0) * group;
    // Few queries over whole vectors read the cache where it lies.
    let few = most <= QUERIES && hd.is_multiple_of(16) && reads(job.dtype);
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
        job.part(&runs[r], first, (part, parts), few, (found, size));
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

    /// Runs of at most `length` tokens.
    fn runs(&self, length: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for t in 0..self.p.t as usize {
            let (sequence, keys) = (self.rows[2 * t] as usize, self.keys(t));
            match runs.last_mut() {
                Some(run) if run.sequence == sequence && run.tokens.len() < length => {
                    run.tokens.end = t + 1;
                    run.keys = run.keys.start.min(keys.start)..run.keys.end.max(keys.end);
                }
                _ => runs.push(Run { tokens: t..t + 1, sequence, keys }),
            }
        }
        runs
    }

    /// Part `part` of `parts` of the keys of a run, against the queries of the groups of heads from `first` on; of each group `found`
    /// gets `size` numbers.
    fn part(
        &self,
        run: &Run,
        first: usize,
        (part, parts): (usize, usize),
        few: bool,
        (found, size): (&mut [f32], usize),
    ) {
        let hd = self.p.hd as usize;
        for found in found.chunks_exact_mut(size) {
            let (_, rest) = split(found, hd);
            rest.chunks_exact_mut(2).for_each(|r| r.copy_from_slice(&[f32::NEG_INFINITY, 0.0]));
        }
        let all = run.keys.len();
        let keys = run.keys.start + all * part / parts..run.keys.start + all * (part + 1) / parts;
        let mut scratch = SCRATCH.take();
        match few {
            true => self.few(run, keys, &mut scratch.few, (found, size)),
            false => self.many(run, keys, first, &mut scratch.many, found),
        }
        SCRATCH.set(scratch);
    }

    /// Keys that are read together: at most `most` from position `at` on, in neighbouring slots.
    fn together(&self, at: usize, end: usize, most: usize) -> usize {
        let cap = self.p.cap as usize;
        most.min(end - at).min(cap - at % cap)
    }

    /// The element of the first head in the slot of position `at`.
    fn slot(&self, run: &Run, at: usize) -> usize {
        let (cap, nkv, hd) = (self.p.cap as usize, self.p.nkv as usize, self.p.hd as usize);
        (run.sequence * cap + at % cap) * nkv * hd
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
        let (largest, total) = vecmath::softmax_sum(self.isa, scale, scores);
        Some((scale * largest, total))
    }
}

/// What was found of a head: the sums of its queries, and maximum and total of each.
fn split(found: &mut [f32], hd: usize) -> (&mut [f32], &mut [f32]) {
    found.split_at_mut(found.len() / (hd + 2) * hd)
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
