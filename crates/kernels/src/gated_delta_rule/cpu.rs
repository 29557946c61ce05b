//! One task per sequence and head. Within it blocks of columns, whose part of the state stays in the nearest cache from its
//! reading to its renewal.
use super::{EPS, Params};
use crate::cpu::Isa;
use crate::cpu::matmul::simd::{Kernel, Simd, dispatch};
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// A head's part of a call.
struct Task<'a> {
    head: usize,
    state: &'a mut [f32],
    /// Tokens of the sequence.
    tokens: std::ops::Range<usize>,
    /// `[tokens, HV]`.
    out: Vec<f32>,
}

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (qkv, b, a, decay) = (c.read::<f32>(0), c.read::<f32>(1), c.read::<f32>(2), c.read::<f32>(3));
    let rows = c.read::<u32>(4);
    let [state, y] = &mut c.writes[..] else { return };
    let state: &mut [f32] = bytemuck::cast_slice_mut(state);
    let y: &mut [f32] = bytemuck::cast_slice_mut(y);
    let (nv, hv) = (p.nv as usize, p.hv as usize);
    let mut tasks = Vec::new();
    for (i, state) in state.chunks_mut((p.hk * p.hv) as usize).enumerate() {
        let seq = (i / nv) as u32;
        let mut its = (0..p.t as usize).filter(|t| rows[2 * t] == seq);
        let Some(first) = its.next() else { continue };
        let tokens = first..its.next_back().unwrap_or(first) + 1;
        let out = vec![0.0; tokens.len() * hv];
        tasks.push(Task { head: i % nv, state, tokens, out });
    }
    let isa = c.cpu.isa;
    c.cpu.pool.for_chunks(&mut tasks, 1, |_, tasks| {
        for task in tasks {
            head(&p, isa, task, Inputs { qkv, b, a, decay, rows });
        }
    });
    for task in &tasks {
        for (t, out) in task.tokens.clone().zip(task.out.chunks(hv)) {
            y[(t * nv + task.head) * hv..][..hv].copy_from_slice(out);
        }
    }
}

#[derive(Clone, Copy)]
struct Inputs<'a> {
    qkv: &'a [f32],
    b: &'a [f32],
    a: &'a [f32],
    decay: &'a [f32],
    rows: &'a [u32],
}

fn head(p: &Params, isa: Isa, task: &mut Task<'_>, x: Inputs<'_>) {
    let (nk, nv, hk, hv) = (p.nk as usize, p.nv as usize, p.hk as usize, p.hv as usize);
    let (width, h) = (p.width() as usize, task.head);
    let key_head = p.key_head(h);
    let (mut q, mut k) = (vec![0.0; hk], vec![0.0; hk]);
    for (t, out) in task.tokens.clone().zip(task.out.chunks_mut(hv)) {
        if x.rows[2 * t + 1] == 0 {
            task.state.fill(0.0);
        }
        let row = &x.qkv[t * width..(t + 1) * width];
        q.copy_from_slice(&row[key_head * hk..][..hk]);
        k.copy_from_slice(&row[(nk + key_head) * hk..][..hk]);
        let k_factor = 1.0 / (vecmath::sum_squares(isa, &k) + EPS).sqrt();
        let q_factor = p.scale / (vecmath::sum_squares(isa, &q) + EPS).sqrt();
        k.iter_mut().for_each(|k| *k *= k_factor);
        q.iter_mut().for_each(|q| *q *= q_factor);
        let beta = 1.0 / (1.0 + (-x.b[t * nv + h]).exp());
        let step = x.a[t * nv + h] + x.decay[nv + h];
        let softplus = if step > 20.0 { step } else { step.exp().ln_1p() };
        let step = Step {
            state: task.state,
            k: &k,
            q: &q,
            v: &row[2 * nk * hk + h * hv..][..hv],
            alpha: (x.decay[h] * softplus).exp(),
            beta,
            both: vecmath::dot_f32(isa, &k, &q),
            out,
        };
        dispatch(isa, step);
    }
}

/// One token of one head: `state` `[HK, HV]`, `out` and `v` `[HV]`, normalised `k` and `q` `[HK]`.
struct Step<'a> {
    state: &'a mut [f32],
    k: &'a [f32],
    q: &'a [f32],
    v: &'a [f32],
    alpha: f32,
    beta: f32,
    /// `k · q`.
    both: f32,
    out: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let wide = self.v.len() / 32 * 32;
        let narrow = wide + (self.v.len() - wide) / 8 * 8;
        (0..wide).step_by(32).for_each(|c| self.columns::<32>(c));
        (wide..narrow).step_by(8).for_each(|c| self.columns::<8>(c));
        (narrow..self.v.len()).for_each(|c| self.columns::<1>(c));
    }
}

impl Step<'_> {
    /// Columns `first .. first + N`.
    #[inline(always)]
    fn columns<const N: usize>(&mut self, first: usize) {
        let hv = self.v.len();
        let (mut held, mut read) = ([0f32; N], [0f32; N]);
        for ((row, k), q) in self.state.chunks_exact(hv).zip(self.k).zip(self.q) {
            for (i, s) in row[first..first + N].iter().enumerate() {
                held[i] += s * k;
                read[i] += s * q;
            }
        }
        let mut delta = [0f32; N];
        for i in 0..N {
            delta[i] = self.beta * (self.v[first + i] - self.alpha * held[i]);
            self.out[first + i] = self.alpha * read[i] + self.both * delta[i];
        }
        for (row, k) in self.state.chunks_exact_mut(hv).zip(self.k) {
            for (i, s) in row[first..first + N].iter_mut().enumerate() {
                *s = self.alpha * *s + k * delta[i];
            }
        }
    }
}
