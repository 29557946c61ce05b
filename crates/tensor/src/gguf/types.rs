//! The type numbers of GGUF tensors.

use crate::DType;

/// What a GGUF file's tensor type number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GgmlType {
    /// A type this crate reads.
    Known(DType),
    /// A type known by name and block size (elements, bytes) only.
    Named(&'static str, u64, u64),
    /// A number without a meaning here.
    Unknown(u32),
}

impl GgmlType {
    /// Numbers as in ggml's `enum ggml_type`; sizes as in its type traits.
    pub(crate) fn from_id(id: u32) -> Self {
        use GgmlType::{Known, Named, Unknown};
        match id {
            0 => Known(DType::F32),
            1 => Known(DType::F16),
            2 => Known(DType::Q4_0),
            3 => Known(DType::Q4_1),
            6 => Known(DType::Q5_0),
            7 => Known(DType::Q5_1),
            8 => Known(DType::Q8_0),
            9 => Named("Q8_1", 32, 36),
            10 => Known(DType::Q2K),
            11 => Known(DType::Q3K),
            12 => Known(DType::Q4K),
            13 => Known(DType::Q5K),
            14 => Known(DType::Q6K),
            15 => Named("Q8_K", 256, 292),
            16 => Named("IQ2_XXS", 256, 66),
            17 => Named("IQ2_XS", 256, 74),
            18 => Named("IQ3_XXS", 256, 98),
            19 => Named("IQ1_S", 256, 50),
            20 => Named("IQ4_NL", 32, 18),
            21 => Named("IQ3_S", 256, 110),
            22 => Named("IQ2_S", 256, 82),
            23 => Named("IQ4_XS", 256, 136),
            24 => Known(DType::I8),
            25 => Named("I16", 1, 2),
            26 => Known(DType::I32),
            27 => Known(DType::I64),
            28 => Named("F64", 1, 8),
            29 => Named("IQ1_M", 256, 56),
            30 => Known(DType::BF16),
            34 => Named("TQ1_0", 256, 54),
            35 => Named("TQ2_0", 256, 66),
            39 => Named("MXFP4", 32, 17),
            40 => Named("NVFP4", 64, 36),
            41 => Named("Q1_0", 128, 18),
            _ => Unknown(id),
        }
    }

    /// The number of a type, or `None` for u8, u32 and bool, which the format lacks.
    pub(super) fn id_of(dtype: DType) -> Option<u32> {
        (0..=41).find(|&id| Self::from_id(id) == GgmlType::Known(dtype))
    }

    pub(crate) fn name(self) -> String {
        match self {
            GgmlType::Known(dtype) => dtype.name().to_owned(),
            GgmlType::Named(name, ..) => name.to_owned(),
            GgmlType::Unknown(id) => format!("number {id}, unknown"),
        }
    }

    /// Elements and bytes of a block.
    pub(crate) fn block(self) -> Option<(u64, u64)> {
        match self {
            GgmlType::Known(d) => Some((d.block_len() as u64, d.block_bytes() as u64)),
            GgmlType::Named(_, len, bytes) => Some((len, bytes)),
            GgmlType::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_types_are_inverse() {
        for &dtype in DType::ALL {
            match GgmlType::id_of(dtype) {
                Some(id) => assert_eq!(GgmlType::from_id(id), GgmlType::Known(dtype)),
                None => assert!(
                    matches!(dtype, DType::U8 | DType::U32 | DType::Bool),
                    "{dtype}"
                ),
            }
        }
        assert_eq!(GgmlType::from_id(4), GgmlType::Unknown(4));
    }
}
