//! The inner products of `span_attention` and `attention`: of many queries with keys and values that are packed for them, and of few
//! with a cache where it lies.
//!
//! One of the crate's listed `unsafe` modules: vector loads and stores inside bounds that are asserted.
#![allow(unsafe_code)]
// An index names the same query in several arrays.
#![allow(clippy::needless_range_loop)]

mod cells;
mod few;
#[cfg(target_arch = "x86_64")]
mod few_vnni;
mod packed;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use cells::Widen;
pub(crate) use cells::{Cells, reads};
pub(crate) use few::{FewScores, FewSums};
#[cfg(target_arch = "x86_64")]
pub(crate) use few_vnni::{Dots, Scratch as DotsScratch};
pub(crate) use packed::{Packed, Rows, TOGETHER};

pub(crate) use super::matmul::simd::dispatch;

/// Queries that are few.
pub(crate) const QUERIES: usize = 4;

/// Asks for the line of memory that holds `at`, there or not, to be brought into the second cache, which takes more such wishes at a
/// time than the first.
#[inline(always)]
pub(crate) fn ask(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; no address is invalid for it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
