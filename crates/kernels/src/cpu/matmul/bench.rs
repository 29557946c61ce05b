//! Speed of every level and format beside the memory's, for people who change a kernel:
//! `cargo test --release -p firelight-kernels --lib matmul::bench -- --ignored --nocapture`.
//!
//! `MATMUL_TYPES=q4_1,q8_0`, `MATMUL_ISA=avx2`, `MATMUL_K=2048` and `MATMUL_THREADS=2` narrow or change what is measured.
#![allow(clippy::print_stdout)]

use super::tests::{Random, TYPES, weights};
use super::*;
use std::sync::OnceLock;
use std::time::Instant;

/// Seconds this thread has computed, where the system tells (Linux), so that a busy machine does not count; else the clock.
fn now(threads: usize) -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match statistics
        .split(' ')
        .next()
        .and_then(|n| n.parse::<f64>().ok())
    {
        Some(nanoseconds) if threads == 1 => nanoseconds * 1e-9,
        _ => START.get_or_init(Instant::now).elapsed().as_secs_f64(),
    }
}

/// Seconds of a call: the mean of as many as take a fifth of a second.
fn measure(threads: usize, mut f: impl FnMut()) -> f64 {
    f();
    let start = now(threads);
    for calls in 1.. {
        f();
        let spent = now(threads) - start;
        if spent > 0.2 {
            return spent / f64::from(calls);
        }
    }
    f64::NAN
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

#[test]
#[ignore = "a measurement, not a test"]
fn report() {
    let mut random = Random::new(9);
    let pool = ThreadPool::new(variable("MATMUL_THREADS", 1));
    let isas = variable("MATMUL_ISA", String::new());
    let types = variable("MATMUL_TYPES", String::new());
    let k: usize = variable("MATMUL_K", 768);

    // Reading memory: f32 sums over 128 MiB, four times what the last cache holds.
    let floats = vec![1f32; 32 << 20];
    let threads = pool.threads();
    let seconds = measure(threads, || {
        pool.run(threads, |i| {
            let part = &floats[floats.len() / threads * i..][..floats.len() / threads];
            std::hint::black_box(crate::cpu::vecmath::sum_squares(Isa::detect(), part));
        });
    });
    println!(
        "{threads} threads; memory read {:.1} GB/s",
        (4 * floats.len()) as f64 / seconds / 1e9
    );

    println!(
        "k = {k}; T = 1 from memory (64 MB of weights) and from the second cache; T = 16, 256"
    );
    let listed = |list: &str, name: &str| list.is_empty() || list.split(',').any(|n| n == name);
    for dtype in TYPES.into_iter().filter(|d| listed(&types, d.name())) {
        for isa in Isa::available()
            .into_iter()
            .filter(|i| listed(&isas, i.name()))
        {
            for rounding in [Rounding::Once, Rounding::Twice, Rounding::Never] {
                if rounding != Rounding::Once && !dtype.is_quantized() {
                    continue;
                }
                let row_bytes = k / dtype.block_len() * dtype.block_bytes();
                let mut line = format!("{dtype:5} {isa:12} {:5}", format!("{rounding:?}"));
                // Random bytes are made for few rows and repeated.
                let some = weights(dtype, 512 * k, &mut random);
                for (bytes, t) in [(64e6, 1), (300e3, 1), (3e5, 16), (1e6, 256)] {
                    let n = (bytes as usize / row_bytes).next_multiple_of(8);
                    let weight: Vec<u8> =
                        some.iter().copied().cycle().take(n * row_bytes).collect();
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
                        task_work: super::TASK_WORK.default as usize,
                        share: None,
                    };
                    let mut y = vec![0f32; n * t];
                    let mut scratch = Scratch::default();
                    let repeat = (20_000_000 / (n * k * t)).clamp(1, 200);
                    let seconds = measure(threads, || {
                        for _ in 0..repeat {
                            run(&pool, &args, &mut scratch, &mut y, n, 0);
                        }
                    }) / repeat as f64;
                    line += &if t == 1 {
                        format!("  {:6.2} GB/s", weight.len() as f64 / seconds / 1e9)
                    } else {
                        format!("  {:6.1} GFLOP/s", 2e-9 * (n * k * t) as f64 / seconds)
                    };
                }
                println!("{line}");
            }
        }
    }
}
