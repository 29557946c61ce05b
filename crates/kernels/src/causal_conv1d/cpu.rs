//! Tokens shared among the threads, vectorised over the channels; the state is renewed when all outputs are there.
use super::Params;
use crate::cpu::vecmath;
use crate::kernel::CpuCall;

/// Products of a task: below this a second thread costs more than it brings.
const WORK: usize = 32_768;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let (isa, channels, taps) = (c.cpu.isa, p.c as usize, p.k as usize);
    let (x, w, rows) = (c.read::<f32>(0), c.read::<f32>(1), c.read::<u32>(2));
    let row = |t: usize| (rows[2 * t] as usize, rows[2 * t + 1] as usize);
    let [state, y] = &mut c.writes[..] else { return };
    let state: &mut [f32] = bytemuck::cast_slice_mut(state);
    let y: &mut [f32] = bytemuck::cast_slice_mut(y);
    let slot = |seq: usize, pos: usize| (seq * taps + pos % taps) * channels;
    // Tokens of the same sequence directly before each.
    let mut before = vec![0usize; p.t as usize];
    for t in 1..before.len() {
        before[t] = if row(t).0 == row(t - 1).0 { before[t - 1] + 1 } else { 0 };
    }
    let old: &[f32] = state;
    let tokens = (WORK / (channels * taps)).max(1);
    c.cpu.pool.for_chunks(y, tokens * channels, |i, y| {
        for (t, y) in (i * tokens..).zip(y.chunks_mut(channels)) {
            let (seq, pos) = row(t);
            if seq >= p.nseq as usize {
                continue;
            }
            y.fill(0.0);
            for back in 0..taps.min(pos + 1) {
                let u = if back <= before[t] { &x[(t - back) * channels..] } else { &old[slot(seq, pos - back)..] };
                let w = &w[(taps - 1 - back) * channels..][..channels];
                for ((y, u), w) in y.iter_mut().zip(u).zip(w) {
                    *y += u * w;
                }
            }
            vecmath::silu(isa, y);
        }
    });
    for t in 0..p.t as usize {
        let (seq, pos) = row(t);
        if seq < p.nseq as usize {
            state[slot(seq, pos)..][..channels].copy_from_slice(&x[t * channels..][..channels]);
        }
    }
}
