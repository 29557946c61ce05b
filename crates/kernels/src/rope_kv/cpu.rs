//! One token at a time: the work is small beside the products around it.
use super::Params;
use crate::kernel::CpuCall;
use firelight_tensor::DType;
use firelight_tensor::quant::{Block, BlockQ8_0};
use half::f16;
use half::slice::HalfFloatSliceExt;

pub(super) fn run(c: &mut CpuCall<'_, '_>) {
    let p: Params = c.call.params();
    let cache = c.call.operands[5].dtype;
    let (k, v) = (c.read::<f32>(0), c.read::<f32>(1));
    let (rows, rope) = (c.read::<u32>(2), c.read::<f32>(3));
    let [q, kc, vc] = &mut c.writes[..] else { return };
    let q: &mut [f32] = bytemuck::cast_slice_mut(q);
    let (hd, kv_len) = (p.hd as usize, (p.nkv * p.hd) as usize);
    let positions = rope.len() / (2 * p.pairs as usize).max(1);
    let mut key = vec![0f32; kv_len];
    for (t, q) in q.chunks_mut((p.nh * p.hd) as usize).enumerate() {
        let (seq, pos) = (rows[2 * t] as usize, rows[2 * t + 1] as usize);
        if pos >= positions {
            continue;
        }
        let angles = &rope[pos * p.pairs as usize * 2..][..p.pairs as usize * 2];
        q.chunks_mut(hd).for_each(|head| rotate(p.pairing, p.pairs as usize, head, angles));
        key.copy_from_slice(&k[t * kv_len..(t + 1) * kv_len]);
        key.chunks_mut(hd).for_each(|head| rotate(p.pairing, p.pairs as usize, head, angles));
        let cell = (seq * p.cap as usize + pos % p.cap as usize) * kv_len;
        store(cache, kc, cell, &key);
        store(cache, vc, cell, &v[t * kv_len..(t + 1) * kv_len]);
    }
}

fn store(cache: DType, bytes: &mut [u8], cell: usize, values: &[f32]) {
    if cache == DType::Q8_0 {
        let blocks: &mut [BlockQ8_0] = bytemuck::cast_slice_mut(bytes);
        for (block, values) in blocks[cell / 32..].iter_mut().zip(values.as_chunks::<32>().0) {
            *block = rounded(values);
        }
    } else if cache == DType::F16 {
        let out: &mut [f16] = bytemuck::cast_slice_mut(bytes);
        out[cell..cell + values.len()].convert_from_f32_slice(values);
    } else {
        let out: &mut [f32] = bytemuck::cast_slice_mut(bytes);
        out[cell..cell + values.len()].copy_from_slice(values);
    }
}

/// Turns the first `pairs` pairs of a head.
pub(crate) fn rotate(pairing: u32, pairs: usize, head: &mut [f32], angles: &[f32]) {
    if pairing == 0 {
        let (first, rest) = head.split_at_mut(pairs);
        for ((a, b), turn) in first.iter_mut().zip(rest).zip(angles.chunks_exact(2)) {
            (*a, *b) = (*a * turn[0] - *b * turn[1], *a * turn[1] + *b * turn[0]);
        }
    } else {
        for (pair, turn) in head.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
            (pair[0], pair[1]) = (pair[0] * turn[0] - pair[1] * turn[1], pair[0] * turn[1] + pair[1] * turn[0]);
        }
    }
}

/// A block of a cache in q8_0; one with an infinity or a NaN gets the scale NaN, so that the answer says so.
pub(crate) fn rounded(values: &[f32; 32]) -> BlockQ8_0 {
    let mut block = BlockQ8_0::quantize(values);
    if values.iter().any(|v| !v.is_finite()) {
        block.d = f16::NAN.to_le_bytes();
    }
    block
}
