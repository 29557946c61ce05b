//! Which instruction set a kernel runs with.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set level that this CPU has.
///
/// Values come only from [`Isa::detect`], [`Isa::available`] and [`Isa::SCALAR`]: **holding an `Isa` proves that its
/// instructions may be executed**, which is what the `SAFETY` lines of the dispatching code rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(Level);

/// The levels, slowest first. Naming one proves nothing; see [`Isa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, any CPU.
    Scalar,
    /// WebAssembly `simd128` (known when compiling).
    Simd128,
    /// AArch64 NEON: every 64-bit ARM CPU.
    Neon,
    /// NEON and `dotprod` (ARMv8.2 and newer: `sdot`).
    NeonDot,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ on top.
    Avx512,
    /// AVX-512 VNNI and VBMI on top (Ice Lake, Zen 4 and newer).
    Avx512Vnni,
}

impl Isa {
    /// True if it has an instruction that turns f16 into f32.
    pub(crate) fn widens_f16(self) -> bool {
        !matches!(self.level(), Level::Scalar | Level::Simd128)
    }

    /// Plain Rust, always there.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// The best level of this CPU.
    pub fn detect() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available().last().copied().unwrap_or(Isa::SCALAR))
    }

    /// Every level of this CPU, slowest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)] // some targets have scalar only
        let mut list = vec![Isa::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 =
                avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
            if avx2 {
                list.push(Isa(Level::Avx2));
            }
            if avx512 {
                list.push(Isa(Level::Avx512));
            }
            if avx512 && has!("avx512vnni") && has!("avx512vbmi") {
                list.push(Isa(Level::Avx512Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            if has!("neon") {
                list.push(Isa(Level::Neon));
                if has!("dotprod") {
                    list.push(Isa(Level::NeonDot));
                }
            }
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        list.push(Isa(Level::Simd128));
        list
    }

    /// The level.
    pub const fn level(self) -> Level {
        self.0
    }

    /// This CPU's level of that name (`avx2`, `avx512_vnni`, …), if it has it.
    pub fn by_name(name: &str) -> Option<Isa> {
        Isa::available().into_iter().find(|isa| isa.name() == name)
    }

    /// The level's name in reports and on command lines.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Simd128 if cfg!(target_feature = "relaxed-simd") => "simd128_relaxed",
            Level::Simd128 => "simd128",
            Level::Neon => "neon",
            Level::NeonDot => "neon_dotprod",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512_vnni",
        }
    }
}

impl Default for Isa {
    fn default() -> Self {
        Isa::detect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
