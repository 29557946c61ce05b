//! Rows of the output split over the threads. Neighbouring tokens with the same span share its keys and values, packed once per
//! head; single ones (windows) go through theirs where they lie.
use super::Params;
use crate::cpu::attend::{Packed, QUERIES, Rows, TOGETHER};
use crate::cpu::{Isa, vecmath};
use crate::kernel::CpuCall;
use std::cell::Cell;

/// Rows of a task: what packing costs is then a few hundredths of what is computed.
const ROWS: usize = 64;

thread_local! {
    static PACKED: Cell<Packed> = Cell::default();
}

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let isa = c.cpu.isa;
    let job = Job { p: &p, isa, q: c.read(0), k: c.read(1), v: c.read(2), spans: c.read(3) };
    let out: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    let (row, t) = ((p.nh * p.hd) as usize, p.t as usize);
    let threads = c.cpu.pool.threads();
    if t == 1 && threads > 1 {
        // A token of a decoder over all of a clip: heads are what there is to split.
        let (heads, hd) = ((p.nh as usize).div_ceil(threads), p.hd as usize);
        c.cpu.pool.for_chunks(out, heads * hd, |i, out| {
            for (h, out) in (i * heads..).zip(out.chunks_mut(hd)) {
                job.one(0, h, job.keys(0), out);
            }
        });
        return;
    }
    let rows = if threads == 1 { t } else { (t / (4 * threads)).clamp(1, ROWS) };
    c.cpu.pool.for_chunks(out, rows * row, |i, out| {
        let mut packed = PACKED.take();
        job.rows(i * rows, out, &mut packed);
        PACKED.set(packed);
    });
}

struct Job<'a> {
    p: &'a Params,
    isa: Isa,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    spans: &'a [u32],
}

impl<'a> Job<'a> {
    /// The output's rows from token `first` on.
    fn rows(&self, first: usize, out: &mut [f32], packed: &mut Packed) {
        let row = (self.p.nh * self.p.hd) as usize;
        let span = |t: usize| (self.spans[2 * t], self.spans[2 * t + 1]);
        let mut t = first;
        let mut rest = out;
        while !rest.is_empty() {
            let left = rest.len() / row;
            let run = (1..left).take_while(|i| span(t + i) == span(t)).count() + 1;
            let (now, later) = rest.split_at_mut(run * row);
            let keys = self.keys(t);
            for h in 0..self.p.nh as usize {
                if keys.is_empty() {
                    now.fill(0.0);
                } else if run < QUERIES {
                    for i in 0..run {
                        self.one(t + i, h, keys.clone(), self.cell(now, i, h));
                    }
                } else {
                    self.block(t, h, keys.clone(), now, packed);
                }
            }
            t += run;
            rest = later;
        }
    }

    /// The keys that a token sees.
    fn keys(&self, t: usize) -> std::ops::Range<usize> {
        self.spans[2 * t] as usize..self.spans[2 * t + 1].min(self.p.s) as usize
    }

    /// Head `h` of row `i` of some rows of the output.
    fn cell<'o>(&self, rows: &'o mut [f32], i: usize, h: usize) -> &'o mut [f32] {
        let (nh, hd) = (self.p.nh as usize, self.p.hd as usize);
        &mut rows[(i * nh + h) * hd..][..hd]
    }

    /// Head `head` of operand `i` (queries, keys, values) from row `row` on.
    fn from(&self, i: usize, row: usize, head: usize) -> Rows<'a> {
        let (stride, first) = (self.p.stride[i] as usize, self.p.first[i] as usize);
        let first = row * stride + first + head * self.p.hd as usize;
        Rows { data: [self.q, self.k, self.v][i], first, stride }
    }

    /// The first of [`Job::from`].
    fn at(&self, i: usize, row: usize, head: usize) -> &'a [f32] {
        let rows = self.from(i, row, head);
        &rows.data[rows.first..][..self.p.hd as usize]
    }

    fn kv_head(&self, h: usize) -> usize {
        h / (self.p.nh / self.p.nkv) as usize
    }

    /// Tokens from `t` on that see the same keys, whose rows of the output are `out`.
    fn block(&self, t: usize, h: usize, keys: std::ops::Range<usize>, out: &mut [f32], packed: &mut Packed) {
        let kv = self.kv_head(h);
        let hd = self.p.hd as usize;
        let [k, v] = [1, 2].map(|i| self.from(i, keys.start, kv));
        packed.fill(self.isa, (keys.len(), hd), k, v);
        let row = self.p.nh as usize * hd;
        for (i, rows) in out.chunks_mut(TOGETHER * row).enumerate() {
            let queries = self.from(0, t + i * TOGETHER, h);
            packed.attend(self.isa, self.p.scale, rows.len() / row, queries, |i, sums, by| {
                for (out, sum) in self.cell(rows, i, h).iter_mut().zip(sums) {
                    *out = sum * by;
                }
            });
        }
    }

    /// One token whose neighbours see other keys.
    fn one(&self, t: usize, h: usize, keys: std::ops::Range<usize>, out: &mut [f32]) {
        let (q, kv) = (self.at(0, t, h), self.kv_head(h));
        let mut scores: Vec<f32> =
            keys.clone().map(|j| vecmath::dot_f32(self.isa, q, self.at(1, j, kv))).collect();
        let (_, total) = vecmath::softmax_sum(self.isa, self.p.scale, &mut scores);
        out.fill(0.0);
        // No keys: no scores, and zeros.
        for (j, s) in keys.zip(&scores) {
            vecmath::axpy_f32(self.isa, s / total, self.at(2, j, kv), out);
        }
    }
}
