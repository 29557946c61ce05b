//! Micro-benchmarks of every kernel's benchmark cases: `cargo bench -p firelight-kernels [-- FILTER] [--gpu] [--threads N]
//! [--rounds N]`.
//!
//! Prints the median time of the rounds (9), GB/s of the bytes the formula must move, and GFLOP/s. Under `cargo test` each case runs once.
#![allow(clippy::print_stdout)]

use firelight_kernels::harness::{bench_case, wanted};
use firelight_kernels::{CpuOptions, Device, KERNELS};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let test = !args.iter().any(|a| a == "--bench");
    let value = |name: &str| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
    };
    let number = |name: &str| {
        let text = value(name)?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name}: expected a number, got `{text}`")),
        )
    };
    let (threads, rounds) = (number("--threads"), number("--rounds"));
    let numbers = [value("--threads"), value("--rounds")];
    let filter = args
        .iter()
        .find(|a| !a.starts_with("--") && !numbers.contains(&Some(*a)));
    #[cfg_attr(not(feature = "gpu"), expect(unused_mut))]
    let mut devices = vec![
        Device::cpu(&CpuOptions {
            threads,
            ..Default::default()
        })
        .expect("a CPU"),
    ];
    if args.iter().any(|a| a == "--gpu") {
        #[cfg(not(feature = "gpu"))]
        panic!("--gpu: expected the feature `gpu`");
        #[cfg(feature = "gpu")]
        devices.push(pollster::block_on(Device::gpu(&Default::default())).expect("a GPU"));
    }
    for device in devices {
        println!(
            "{device:?}\n{:<48} {:>12} {:>10} {:>10}",
            "case", "time", "GB/s", "GFLOP/s"
        );
        for &kernel in KERNELS {
            for case in kernel
                .cases()
                .iter()
                .filter(|c| c.bench && wanted(&device, c))
            {
                let name = format!("{} {}", kernel.name(), case.name);
                if filter.is_some_and(|f| !name.contains(f.as_str())) {
                    continue;
                }
                let (rounds, repeat) = if test {
                    (1, 1)
                } else {
                    (rounds.unwrap_or(9), 4)
                };
                match pollster::block_on(bench_case(&device, kernel, case, rounds, repeat)) {
                    Ok(t) => println!(
                        "{name:<48} {:>12.1?} {:>10.2} {:>10.2}",
                        t.time, t.gb_per_s, t.gflop_per_s
                    ),
                    Err(e) => println!("{name:<48} {e}"),
                }
            }
        }
    }
}
