//! Where a picture's samples are.

use firelight_tensor::AlignedBuf;
use std::ops::{Deref, DerefMut};

/// Bytes of a picture.
pub(crate) enum Samples {
    Vec(Vec<u8>),
    /// What a decoder of large pictures writes to: in huge pages, where there are any.
    Buffer(AlignedBuf),
}

impl Samples {
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Samples::Vec(bytes) => bytes,
            Samples::Buffer(bytes) => bytes.to_vec(),
        }
    }
}

impl Deref for Samples {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Samples::Vec(bytes) => bytes,
            Samples::Buffer(bytes) => bytes,
        }
    }
}

impl DerefMut for Samples {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Samples::Vec(bytes) => bytes,
            Samples::Buffer(bytes) => bytes,
        }
    }
}

impl Clone for Samples {
    fn clone(&self) -> Self {
        Samples::Vec(self.to_vec())
    }
}

impl PartialEq for Samples {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Samples {}
