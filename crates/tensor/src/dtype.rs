//! Element types: plain numbers and block-quantised formats.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The element type of a tensor.
///
/// Plain types have blocks of one element. Quantised types pack [`DType::block_len`] consecutive elements of a row into
/// [`DType::block_bytes`] bytes, in exactly the byte layout that GGUF files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs)] // the variants are the field's own names
pub enum DType {
    F32,
    F16,
    BF16,
    I8,
    U8,
    I32,
    U32,
    I64,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl DType {
    /// Every type, in declaration order.
    pub const ALL: &[DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I8,
        DType::U8,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::Bool,
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

    /// The block-quantised types.
    pub const QUANTIZED: &[DType] = &[
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

    /// Elements in one block (1 for plain types).
    pub const fn block_len(self) -> usize {
        match self {
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 => 32,
            DType::Q2K | DType::Q3K | DType::Q4K | DType::Q5K | DType::Q6K => 256,
            _ => 1,
        }
    }

    /// Bytes of one block (of one element for plain types).
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::BF16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::I64 => 8,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
            DType::Q2K => 84,
            DType::Q3K => 110,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
        }
    }

    /// The alignment, in bytes, that elements need to be used in place: 1 for block-quantised types.
    pub const fn align(self) -> usize {
        if self.is_quantized() {
            1
        } else {
            self.block_bytes()
        }
    }

    /// True for the block-quantised types.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// True for f32, f16 and bf16.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The lower-case name: `f32`, `q4_0`, `q4_k`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::Bool => "bool",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q8_0 => "q8_0",
            DType::Q2K => "q2_k",
            DType::Q3K => "q3_k",
            DType::Q4K => "q4_k",
            DType::Q5K => "q5_k",
            DType::Q6K => "q6_k",
        }
    }

    /// Bytes needed for `elements` elements.
    ///
    /// # Errors
    /// `InvalidInput` if `elements` is not a whole number of blocks, `Limit` if the size does not fit in `usize`.
    pub fn bytes_for(self, elements: usize) -> Result<usize> {
        if !elements.is_multiple_of(self.block_len()) {
            return Err(Error::invalid(format!(
                "{elements} elements of {self}: expected a multiple of the block length {}",
                self.block_len()
            )));
        }
        (elements / self.block_len())
            .checked_mul(self.block_bytes())
            .ok_or(Error::Limit {
                what: "tensor bytes",
                max: usize::MAX as u64,
                got: u64::MAX,
            })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let lower = s.to_ascii_lowercase();
        DType::ALL
            .iter()
            .copied()
            .find(|d| d.name() == lower)
            .ok_or_else(|| {
                let names: Vec<_> = DType::ALL.iter().map(|d| d.name()).collect();
                Error::Unsupported(format!("dtype `{s}`; known: {}", names.join(", ")))
            })
    }
}
