//! The ladder: which way of running is in use.

use crate::Error;
use std::fmt;
use std::str::FromStr;

/// A step of the ladder, best first. A device that is missing, answers wrong or is lost leads to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rung {
    /// GPU with f16 storage and subgroup operations.
    GpuF16Subgroups,
    /// GPU with f16 storage.
    GpuF16,
    /// GPU within WebGPU's default features: f32 only.
    GpuF32,
    /// CPU with SIMD on several threads.
    CpuThreads,
    /// CPU with SIMD on one thread.
    CpuSimd,
    /// CPU without SIMD.
    CpuScalar,
}

impl Rung {
    /// Every rung, best first.
    pub const ALL: [Rung; 6] = [
        Rung::GpuF16Subgroups,
        Rung::GpuF16,
        Rung::GpuF32,
        Rung::CpuThreads,
        Rung::CpuSimd,
        Rung::CpuScalar,
    ];

    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Rung::GpuF16Subgroups => "gpu-f16-subgroups",
            Rung::GpuF16 => "gpu-f16",
            Rung::GpuF32 => "gpu-f32",
            Rung::CpuThreads => "cpu",
            Rung::CpuSimd => "cpu-simd",
            Rung::CpuScalar => "cpu-scalar",
        }
    }

    /// True for the GPU's rungs.
    pub const fn is_gpu(self) -> bool {
        matches!(self, Rung::GpuF16Subgroups | Rung::GpuF16 | Rung::GpuF32)
    }

    /// The next rung down, if there is one.
    pub fn next(self) -> Option<Rung> {
        let i = Rung::ALL.iter().position(|&r| r == self)?;
        Rung::ALL.get(i + 1).copied()
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rung {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        Rung::ALL
            .into_iter()
            .find(|r| r.name() == s)
            .ok_or_else(|| {
                let names = Rung::ALL.map(Rung::name);
                Error::invalid(format!("rung `{s}`; known: {}", names.join(", ")))
            })
    }
}
