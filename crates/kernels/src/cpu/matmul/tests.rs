//! Every level and format against a naive f64 product with the dequantised weights.

use super::*;
use firelight_tensor::quant::dequantize_into;

/// A small linear congruential generator.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }
    pub(super) fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.bits() as usize) % n
    }
    /// About normal: mean 0, deviation 1.
    pub(super) fn normal(&mut self) -> f32 {
        (0..12)
            .map(|_| self.bits() as f32 / u32::MAX as f32)
            .sum::<f32>()
            - 6.0
    }
}

pub(super) const TYPES: [DType; 13] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
];

/// Random weights that use every bit of the format, with f16 scales of a usual size.
pub(super) fn weights(dtype: DType, len: usize, random: &mut Random) -> Vec<u8> {
    let bytes = len / dtype.block_len() * dtype.block_bytes();
    let scales: &[usize] = match dtype {
        DType::F32 => {
            return (0..len)
                .flat_map(|_| random.normal().to_le_bytes())
                .collect();
        }
        DType::F16 => {
            let mut half = || half::f16::from_f32(random.normal()).to_le_bytes();
            return (0..len).flat_map(|_| half()).collect();
        }
        DType::BF16 => {
            let mut half = || half::bf16::from_f32(random.normal()).to_le_bytes();
            return (0..len).flat_map(|_| half()).collect();
        }
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        _ => &[0],
    };
    let mut out: Vec<u8> = (0..bytes).map(|_| random.bits() as u8).collect();
    for block in out.chunks_exact_mut(dtype.block_bytes()) {
        for &at in scales {
            let scale = half::f16::from_f32(random.normal() * 0.01);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    out
}

fn dequantized(dtype: DType, bytes: &[u8], len: usize) -> Vec<f32> {
    let halves = || {
        bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    match dtype {
        DType::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        DType::F16 => halves().map(|h| half::f16::from_bits(h).to_f32()).collect(),
        DType::BF16 => halves()
            .map(|h| half::bf16::from_bits(h).to_f32())
            .collect(),
        _ => {
            let mut out = vec![0.0; len];
            dequantize_into(dtype, bytes, &mut out).unwrap();
            out
        }
    }
}

/// For each output: the exact value, Σ|w·x|, and the largest error that rounding `x` to 8 bits can cause.
fn reference(args: &MatmulArgs<'_>) -> Vec<(f64, f64, f64)> {
    let w = dequantized(args.dtype, args.weight, args.n * args.k);
    let mut out = Vec::new();
    for x in args.x.chunks_exact(args.k) {
        for w in w.chunks_exact(args.k) {
            let (mut y, mut size, mut rounding) = (0f64, 0f64, 0f64);
            for (w, x) in w.chunks(32).zip(x.chunks(32)) {
                let half_step = f64::from(x.iter().fold(0f32, |a, x| a.max(x.abs()))) / 254.0;
                for (&w, &x) in w.iter().zip(x) {
                    y += f64::from(w) * f64::from(x);
                    size += (f64::from(w) * f64::from(x)).abs();
                    rounding += f64::from(w).abs() * half_step;
                }
            }
            out.push((y, size, rounding));
        }
    }
    out
}

/// The product, on `threads` threads.
fn product(args: &MatmulArgs<'_>, threads: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; args.t * args.n];
    let mut scratch = Scratch::default();
    run(
        &ThreadPool::new(threads),
        args,
        &mut scratch,
        &mut y,
        args.n,
        0,
    );
    y
}

/// The first output that differs from the reference by more than the mode allows.
fn first_error(args: &MatmulArgs<'_>, y: &[f32]) -> Option<String> {
    // What the second rounding leaves is at most 1/127 of half a step of the first's.
    let part = match args.form() {
        Form::Int8 { passes: 1, .. } => 1.001,
        Form::Int8 { .. } => 1.01 / 254.0,
        Form::Float => 0.0,
    };
    reference(args)
        .iter()
        .zip(y)
        .enumerate()
        .find_map(|(i, (&(want, size, rounding), &got))| {
            // Blocks whose largest magnitude is below 1e-30 count as 0.
            let allowed = 1e-5 * size + part * rounding + 1e-29;
            let error = (f64::from(got) - want).abs();
            // Written so that NaN is an error.
            (!(error <= allowed)).then(|| {
                let (t, n) = (i / args.n, i % args.n);
                format!("y[{t},{n}] = {got}, expected {want} ± {allowed}")
            })
        })
}

const ROUNDINGS: [Rounding; 3] = [Rounding::Never, Rounding::Twice, Rounding::Once];

fn widths(dtype: DType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 7, 64, 321, 1100],
        32 => &[32, 96, 576, 1056 + 32],
        _ => &[256, 768, 1280],
    }
}

#[test]
fn every_level_and_type_matches_the_reference() {
    let mut random = Random::new(1);
    for isa in Isa::available() {
        for dtype in TYPES {
            for (i, &k) in widths(dtype).iter().enumerate() {
                for t in [1, 2, 3, 7, 8, 16, 33] {
                    let n = [1, 5, 33, 70][(i + t) % 4];
                    let weight = weights(dtype, n * k, &mut random);
                    let x: Vec<f32> = (0..t * k).map(|_| random.normal()).collect();
                    for rounding in ROUNDINGS {
                        let args = MatmulArgs {
                            dtype,
                            weight: &weight,
                            n,
                            k,
                            x: &x,
                            t,
                            rounding,
                            isa,
                            task_work: TASK_WORK.default as usize,
                            share: None,
                        };
                        if let Some(error) = first_error(&args, &product(&args, 1)) {
                            panic!("{isa} {dtype} k={k} t={t} n={n} {rounding:?}: {error}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_comparison_finds_a_wrong_weight_and_a_wrong_output() {
    let mut random = Random::new(2);
    for dtype in TYPES {
        let (n, k, t) = (5, 256, 2);
        let weight = weights(dtype, n * k, &mut random);
        let x: Vec<f32> = (0..t * k).map(|_| random.normal() + 2.0).collect();
        let isa = Isa::detect();
        let args = MatmulArgs {
            dtype,
            weight: &weight,
            n,
            k,
            x: &x,
            t,
            rounding: Rounding::Never,
            isa,
            task_work: TASK_WORK.default as usize,
            share: None,
        };
        let mut y = product(&args, 1);
        assert_eq!(first_error(&args, &y), None, "{dtype}");
        // One bit of one weight (the format's high bits, not at a scale).
        let mut wrong = weight.clone();
        let at = wrong.len() / 2 + if dtype.block_len() == 32 { 11 } else { 40 };
        wrong[at | 3] ^= 0x40;
        assert!(
            first_error(
                &MatmulArgs {
                    weight: &wrong,
                    ..args
                },
                &y
            )
            .is_some(),
            "{dtype}"
        );
        y[3] = f32::NAN;
        assert!(first_error(&args, &y).is_some(), "{dtype}");
    }
}

#[test]
fn any_split_gives_the_same_bits() {
    let mut random = Random::new(3);
    for isa in Isa::available() {
        for dtype in TYPES {
            for (t, rounding) in [1, 3, 16]
                .into_iter()
                .flat_map(|t| ROUNDINGS.map(|r| (t, r)))
            {
                let (n, k) = (131, 768);
                let weight = weights(dtype, n * k, &mut random);
                let x: Vec<f32> = (0..t * k).map(|_| random.normal()).collect();
                let args = MatmulArgs {
                    dtype,
                    weight: &weight,
                    n,
                    k,
                    x: &x,
                    t,
                    rounding,
                    isa,
                    task_work: TASK_WORK.default as usize,
                    share: None,
                };
                let whole = product(&args, 1);
                assert!(
                    same_bits(&whole, &product(&args, 3)),
                    "{isa} {dtype} t={t} 3 threads"
                );
                let mut prepared = Prepared::default();
                prepared.update(&ThreadPool::new(1), &args);
                let mut y = vec![f32::NAN; t * n];
                let out = Columns {
                    y: SharedOut::new(&mut y),
                    stride: n,
                    first: 0,
                };
                let mut start = 0;
                while start < n {
                    let end = n.min(start + 1 + random.below(60));
                    // SAFETY: one thread, ranges one after the other.
                    unsafe { rows(&args, &prepared, start..end, &out) };
                    start = end;
                }
                assert!(
                    same_bits(&whole, &y),
                    "{isa} {dtype} t={t} {rounding:?} split"
                );
            }
        }
    }
}

pub(super) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn zeros_large_values_and_non_finite_ones() {
    let mut random = Random::new(4);
    for isa in Isa::available() {
        for dtype in TYPES {
            for (t, rounding) in [
                (2, Rounding::Once),
                (2, Rounding::Twice),
                (16, Rounding::Once),
            ] {
                let (n, k) = (35, 512);
                let weight = weights(dtype, n * k, &mut random);
                let mut x = vec![0f32; t * k];
                let of = |x: &[f32]| {
                    let args = MatmulArgs {
                        dtype,
                        weight: &weight,
                        n,
                        k,
                        x,
                        t,
                        rounding,
                        isa,
                        task_work: TASK_WORK.default as usize,
                        share: None,
                    };
                    let y = product(&args, 1);
                    let error = first_error(&args, &y);
                    (y, error)
                };
                assert!(
                    of(&x).0.iter().all(|y| *y == 0.0),
                    "{isa} {dtype} t={t}: 0 · W"
                );
                // One huge element, the rest far below its step.
                x[k + 77] = -3e30;
                x[k + 300] = 1e-30;
                assert_eq!(of(&x).1, None, "{isa} {dtype} t={t}: large values");
                for bad in [f32::NAN, f32::INFINITY] {
                    x[k + 77] = bad;
                    let y = of(&x).0;
                    let (clean, poisoned) = (&y[..n], &y[n..2 * n]);
                    assert!(
                        clean.iter().all(|y| *y == 0.0),
                        "{isa} {dtype} t={t}: the other token"
                    );
                    assert!(
                        poisoned.iter().all(|y| !y.is_finite()),
                        "{isa} {dtype} t={t}: {bad}"
                    );
                }
            }
        }
    }
}

#[test]
fn writes_only_its_columns() {
    let mut random = Random::new(5);
    for t in [1, 3, 16] {
        let (n, k, ldy, col0) = (37, 96, 50, 6);
        let weight = weights(DType::Q4_1, n * k, &mut random);
        let x: Vec<f32> = (0..t * k).map(|_| random.normal()).collect();
        let isa = Isa::detect();
        let args = MatmulArgs {
            dtype: DType::Q4_1,
            weight: &weight,
            n,
            k,
            x: &x,
            t,
            rounding: Rounding::Once,
            isa,
            task_work: TASK_WORK.default as usize,
            share: None,
        };
        let mut y = vec![7.0; t * ldy];
        run(
            &ThreadPool::new(2),
            &args,
            &mut Scratch::default(),
            &mut y,
            ldy,
            col0,
        );
        let want = product(&args, 1);
        for (row, want) in y.chunks_exact(ldy).zip(want.chunks_exact(n)) {
            assert!(same_bits(&row[col0..col0 + n], want));
            assert!(
                row[..col0]
                    .iter()
                    .chain(&row[col0 + n..])
                    .all(|y| *y == 7.0)
            );
        }
    }
}

/// The figures that the module's documentation states.
#[test]
fn error_of_8_bit_activations() {
    let mut random = Random::new(6);
    let figures = [(Rounding::Once, 1e-4, 0.01), (Rounding::Twice, 1e-7, 5e-5)];
    for (dtype, (rounding, least, most)) in TYPES
        .into_iter()
        .filter(|d| d.is_quantized())
        .flat_map(|d| figures.map(|f| (d, f)))
    {
        let (n, k, t) = (256, 2048, 4);
        let w: Vec<f32> = (0..n * k).map(|_| random.normal()).collect();
        let mut weight = vec![0; dtype.bytes_for(n * k).unwrap()];
        firelight_tensor::quant::quantize_into(dtype, &w, &mut weight).unwrap();
        let x: Vec<f32> = (0..t * k).map(|_| random.normal()).collect();
        let isa = Isa::detect();
        let args = MatmulArgs {
            dtype,
            weight: &weight,
            n,
            k,
            x: &x,
            t,
            rounding,
            isa,
            task_work: TASK_WORK.default as usize,
            share: None,
        };
        let (mut error, mut size) = (0f64, 0f64);
        for (&(want, ..), got) in reference(&args).iter().zip(product(&args, 1)) {
            error += (f64::from(got) - want).powi(2);
            size += want.powi(2);
        }
        let relative = (error / size).sqrt();
        assert!(relative < most, "{dtype} {rounding:?}: {relative}");
        assert!(
            relative > least,
            "{dtype} {rounding:?}: {relative}, are the activations rounded at all?"
        );
    }
}
