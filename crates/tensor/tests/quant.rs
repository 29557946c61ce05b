//! Quantised formats against the reference's goldens, against the formulas, and against themselves.

use firelight_tensor::quant::{MAX_VALUE, dequantize_into, quantize_into};
use firelight_tensor::{DType, Error, MemSource, SafeTensors, Tensor};
use half::f16;
use proptest::prelude::*;
use std::sync::Arc;

fn goldens() -> SafeTensors {
    let bytes: &[u8] = include_bytes!("goldens/quant.safetensors");
    SafeTensors::open(Arc::new(MemSource::new("quant.safetensors", bytes))).unwrap()
}

fn dequantize(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    dequantize_into(dtype, bytes, &mut out).unwrap();
    out
}

fn quantize(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0xaa; dtype.bytes_for(values.len()).unwrap()];
    quantize_into(dtype, values, &mut out).unwrap();
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn dequantises_as_the_reference_bit_for_bit() {
    let goldens = goldens();
    for &dtype in DType::QUANTIZED {
        let blocks = goldens.read(&format!("{dtype}.blocks")).unwrap();
        let expected = goldens
            .read(&format!("{dtype}.values"))
            .unwrap()
            .to_f32_vec()
            .unwrap();
        assert!(expected.iter().any(|v| *v != 0.0));
        let actual = dequantize(dtype, blocks.bytes());
        // A zero scale gives zeros whose sign the reference and this crate are free to choose.
        for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
            assert!(
                a.to_bits() == e.to_bits() || (*a == 0.0 && *e == 0.0),
                "{dtype} {i}: {a} for {e}"
            );
        }
        assert_eq!(actual.len(), expected.len());
        // Negative control: one flipped bit anywhere in a block with scales shows.
        let mut other = blocks.bytes().to_vec();
        other[dtype.block_bytes() + dtype.block_bytes() / 2] ^= 1;
        assert_ne!(bits(&dequantize(dtype, &other)), bits(&actual), "{dtype}");
    }
}

#[test]
fn quantises_the_legacy_formats_as_the_reference_byte_for_byte() {
    let goldens = goldens();
    for dtype in [
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
    ] {
        let input = goldens
            .read(&format!("{dtype}.input"))
            .unwrap()
            .to_f32_vec()
            .unwrap();
        let expected = goldens.read(&format!("{dtype}.quantized")).unwrap();
        let actual = quantize(dtype, &input);
        let blocks = actual
            .chunks(dtype.block_bytes())
            .zip(expected.bytes().chunks(dtype.block_bytes()));
        for (i, (a, e)) in blocks.enumerate() {
            assert_eq!(a, e, "{dtype} block {i}");
        }
    }
}

/// Value `i` of a block by the format's description alone: f64, one value at a time, bit fields by position.
fn formula(dtype: DType, b: &[u8], i: usize) -> f64 {
    let half = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f64();
    let nibble =
        |base: usize, i: usize| f64::from(b[base + i % 16] >> (if i < 16 { 0 } else { 4 }) & 15);
    let bit = |base: usize, n: usize| f64::from(b[base + n / 8] >> (n % 8) & 1);
    let pair = |base: usize, i: usize| {
        f64::from(b[base + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3)
    };
    let four =
        |base: usize, i: usize| f64::from(b[base + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15);
    // Six-bit scales and offsets of Q4_K and Q5_K, at `base`.
    let six = |base: usize, j: usize| -> (f64, f64) {
        let byte = |n: usize| u32::from(b[base + n]);
        let (s, m) = match j {
            0..4 => (byte(j) % 64, byte(j + 4) % 64),
            _ => (
                byte(j + 4) % 16 + byte(j - 4) / 64 * 16,
                byte(j + 4) / 16 + byte(j) / 64 * 16,
            ),
        };
        (s.into(), m.into())
    };
    match dtype {
        DType::Q4_0 => half(0) * (nibble(2, i) - 8.0),
        DType::Q4_1 => half(0) * nibble(4, i) + half(2),
        DType::Q5_0 => half(0) * (nibble(6, i) + 16.0 * bit(2, i) - 16.0),
        DType::Q5_1 => half(0) * (nibble(8, i) + 16.0 * bit(4, i)) + half(2),
        DType::Q8_0 => half(0) * f64::from(b[2 + i] as i8),
        DType::Q2K => {
            let s = b[i / 16];
            half(80) * f64::from(s % 16) * pair(16, i) - half(82) * f64::from(s / 16)
        }
        DType::Q3K => {
            let j = i / 16;
            let low = b[96 + j % 8] >> (j / 8 * 4) & 15;
            let high = b[104 + j % 4] >> (j / 4 * 2) & 3;
            let q = pair(32, i) + 4.0 * f64::from(b[i % 32] >> (i / 32) & 1);
            half(108) * (f64::from(low) + 16.0 * f64::from(high) - 32.0) * (q - 4.0)
        }
        DType::Q4K => {
            let (s, m) = six(4, i / 32);
            half(0) * s * four(16, i) - half(2) * m
        }
        DType::Q5K => {
            let (s, m) = six(4, i / 32);
            let q = four(48, i) + 16.0 * f64::from(b[16 + i % 32] >> (i / 32) & 1);
            half(0) * s * q - half(2) * m
        }
        DType::Q6K => {
            let low = f64::from(b[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15);
            half(208) * f64::from(b[192 + i / 16] as i8) * (low + 16.0 * pair(128, i) - 32.0)
        }
        _ => unreachable!(),
    }
}

/// Where a block's f16 scales lie; the goldens' maker has the same table.
fn scale_places(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        _ => unreachable!(),
    }
}

/// How far `quantise → dequantise` may be from a value: half a step, where the step follows from the block's range, plus
/// the rounding of the f16 scales (2^-11 relative to what they scale) and of the smallest f16.
fn error_bound(dtype: DType, block: &[f32]) -> f64 {
    let size = block.iter().fold(0.0f64, |m, &v| m.max(f64::from(v.abs())));
    let lo = block.iter().fold(f64::MAX, |m, &v| m.min(v.into()));
    let hi = block.iter().fold(f64::MIN, |m, &v| m.max(v.into()));
    let steps = match dtype {
        // The side of the smaller extreme has one level less: up to a whole step off at its end.
        DType::Q4_0 => size / 8.0,
        DType::Q5_0 => size / 16.0,
        DType::Q4_1 => (hi - lo) / 15.0 / 2.0,
        DType::Q5_1 => (hi - lo) / 31.0 / 2.0,
        DType::Q8_0 => size / 127.0 / 2.0,
        // Searched: within the range of the largest sub-block's step, whose scale is rounded to 4, 6 or 8 bits too.
        DType::Q2K => 2.0 * size * (1.0 / 3.0 + 1.0 / 15.0),
        DType::Q3K => 2.0 * size * (1.0 / 4.0 + 1.0 / 32.0),
        DType::Q4K => 2.0 * size * (1.0 / 15.0 + 1.0 / 63.0),
        DType::Q5K => 2.0 * size * (1.0 / 31.0 + 1.0 / 63.0),
        DType::Q6K => 2.0 * size * (1.0 / 32.0 + 1.0 / 128.0),
        _ => unreachable!(),
    };
    steps + size / 1024.0 + 32.0 * f64::from(f16::MIN_POSITIVE_SUBNORMAL) * 64.0
}

fn quantized() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::QUANTIZED)
}

/// 256 values of one size, with a few shapes of distribution.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let size = prop_oneof![Just(0.0f32), 1e-6f32..1e-3, 0.01f32..10.0, 10.0f32..1e4];
    (size, 0..4, prop::collection::vec(-1.0f32..1.0, 256)).prop_map(|(size, kind, unit)| {
        let shape = |(i, v): (usize, f32)| match kind {
            0 => v,
            1 => v.abs(),
            2 => v * v * v,
            _ => {
                if i % 37 == 5 {
                    v
                } else {
                    v * 0.05
                }
            }
        };
        unit.into_iter()
            .enumerate()
            .map(|iv| size * shape(iv))
            .collect()
    })
}

proptest! {
    /// Any bytes with scales of a sane size dequantise to the formula, rounded once.
    #[test]
    fn dequantises_by_the_formula(
        dtype in quantized(),
        mut bytes in prop::collection::vec(any::<u8>(), 2 * 210),
        scales in prop::collection::vec(-2.0f32..2.0, 4),
    ) {
        let size = dtype.block_bytes();
        bytes.truncate(2 * size);
        for (block, scales) in bytes.chunks_mut(size).zip(scales.chunks(2)) {
            for (&at, &d) in scale_places(dtype).iter().zip(scales) {
                block[at..at + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
            }
        }
        let actual = dequantize(dtype, &bytes);
        for (i, &a) in actual.iter().enumerate() {
            let block = i / dtype.block_len();
            let expected = formula(dtype, &bytes[block * size..][..size], i % dtype.block_len());
            prop_assert!(f64::from(a) == f64::from(expected as f32), "{dtype} {i}: {a} for {expected}");
        }
    }

    /// Arbitrary bytes, infinite and NaN scales included, give some values and no panic.
    #[test]
    fn any_bytes_dequantise(dtype in quantized(), bytes in prop::collection::vec(any::<u8>(), 210)) {
        dequantize(dtype, &bytes[..dtype.block_bytes()]);
    }

    #[test]
    fn what_was_quantised_comes_back_close(dtype in quantized(), values in values()) {
        let back = dequantize(dtype, &quantize(dtype, &values));
        for (i, block) in values.chunks(dtype.block_len()).enumerate() {
            let bound = error_bound(dtype, block);
            for (j, &v) in block.iter().enumerate() {
                let err = f64::from(back[i * dtype.block_len() + j] - v).abs();
                prop_assert!(err <= bound, "{dtype} {i}.{j}: {v} off by {err}, bound {bound}");
            }
        }
    }

    /// Values that a legacy format can hold exactly survive: its own output, quantised again, is unchanged.
    #[test]
    fn q8_0_is_stable(values in values()) {
        let once = dequantize(DType::Q8_0, &quantize(DType::Q8_0, &values));
        let twice = dequantize(DType::Q8_0, &quantize(DType::Q8_0, &once));
        for (a, b) in once.iter().zip(&twice) {
            prop_assert!((a - b).abs() <= a.abs() / 500.0, "{a} {b}");
        }
    }
}

/// Root mean square error relative to that of the data, over a seeded bell-shaped sample with some outliers.
fn relative_rms(dtype: DType) -> f64 {
    let mut state = 1u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..64 * 256)
        .map(|_| (0..12).map(|_| uniform()).sum())
        .collect();
    let back = dequantize(dtype, &quantize(dtype, &values));
    let square = |x: f32| f64::from(x) * f64::from(x);
    let err: f64 = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
    (err / values.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// More bits, less error; and no format is worse than it is known to be on a bell-shaped distribution.
#[test]
fn errors_on_a_bell_curve_are_as_known() {
    let bounds = [
        (DType::Q2K, 0.29),
        (DType::Q3K, 0.16),
        (DType::Q4_0, 0.10),
        (DType::Q4_1, 0.09),
        (DType::Q4K, 0.075),
        (DType::Q5_0, 0.05),
        (DType::Q5_1, 0.045),
        (DType::Q5K, 0.040),
        (DType::Q6K, 0.021),
        (DType::Q8_0, 0.006),
    ];
    for (dtype, bound) in bounds {
        let err = relative_rms(dtype);
        assert!(err < bound && err > bound / 2.0, "{dtype}: {err}");
    }
    assert!(relative_rms(DType::Q4K) < relative_rms(DType::Q4_0));
}

#[test]
fn what_cannot_be_quantised_is_refused() {
    for &dtype in DType::QUANTIZED {
        let n = dtype.block_len();
        let mut out = vec![0; dtype.block_bytes()];
        for bad in [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            MAX_VALUE * 1.01,
            f32::MAX,
        ] {
            let mut values = vec![1.0; n];
            values[n / 2] = bad;
            let error = quantize_into(dtype, &values, &mut out)
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("element {}", n / 2)), "{error}");
        }
        // The largest that is taken comes back finite.
        for sign in [1.0, -1.0] {
            let back = dequantize(dtype, &quantize(dtype, &vec![sign * MAX_VALUE; n]));
            assert!(back.iter().all(|v| v.is_finite()), "{dtype}");
        }
        // Denormals become zeros, not NaN.
        let tiny = dequantize(dtype, &quantize(dtype, &vec![f32::from_bits(1); n]));
        assert!(tiny.iter().all(|&v| v == 0.0), "{dtype}");
        assert!(quantize_into(dtype, &vec![1.0; n - 1], &mut out).is_err());
        assert!(dequantize_into(dtype, &out, &mut vec![0.0; n + 1]).is_err());
        assert!(dequantize_into(dtype, &out[1..], &mut vec![0.0; n]).is_err());
    }
    let error = dequantize_into(DType::F32, &[0; 4], &mut [0.0]).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)));
}

#[test]
fn rows_must_be_whole_blocks() {
    // 64 elements, but rows of 16.
    assert!(Tensor::new(DType::Q4_0, &[4, 16], vec![0; 36]).is_err());
    let t = Tensor::new(DType::Q4_0, &[2, 32], vec![0; 36]).unwrap();
    assert!(t.reshape(&[4, 16]).is_err());
    assert_eq!(
        t.reshape(&[64])
            .unwrap()
            .slice_outer(32..64)
            .unwrap()
            .bytes()
            .len(),
        18
    );
    assert!(t.reshape(&[64]).unwrap().slice_outer(16..48).is_err());
    assert_eq!(t.slice_outer(1..2).unwrap().shape(), [1, 32]);
}
