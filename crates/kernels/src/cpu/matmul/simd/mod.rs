//! The few vector operations that the CPU kernels are written in, one implementation per instruction set.
//!
//! A kernel is a struct that implements [`Kernel`]; [`dispatch`] runs it inside a function compiled for the chosen level, with
//! a token `S: Simd` that proves the level is there. Everything generic that it calls is `#[inline(always)]` and so compiled
//! for that level too: plain loops vectorise with the level's instructions, and the operations below are single ones.
//!
//! One of the crate's listed `unsafe` modules. Two facts carry all of it: a token exists only inside [`dispatch`], which was
//! given an [`Isa`] (proof that the CPU has the level); and the pointer operations state what must be readable or writable.

/// What levels with vectors of 128 bits do alike, where 8 numbers are two vectors. The token has
/// `dots::<WIDE>(sum, q, x)`, which adds dot products of 16 bytes from `x` on to four lanes.
#[cfg(any(
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
macro_rules! pairs_of_vectors {
    () => {
        #[inline(always)]
        fn eight_zeros(self) -> Self::H {
            (self.splat(0.0), self.splat(0.0))
        }
        #[inline(always)]
        unsafe fn eight_load(self, from: *const f32) -> Self::H {
            // SAFETY: see the impl.
            unsafe { (self.load(from), self.load(from.add(4))) }
        }
        #[inline(always)]
        unsafe fn eight_store(self, to: *mut f32, v: Self::H) {
            // SAFETY: see the impl.
            unsafe {
                self.store(to, v.0);
                self.store(to.add(4), v.1);
            }
        }
        #[inline(always)]
        fn eight_add(self, a: Self::H, b: Self::H) -> Self::H {
            (self.add(a.0, b.0), self.add(a.1, b.1))
        }
        #[inline(always)]
        fn eight_mul(self, a: Self::H, b: Self::H) -> Self::H {
            (self.mul(a.0, b.0), self.mul(a.1, b.1))
        }
        #[inline(always)]
        fn eight_mul_add(self, a: Self::H, b: Self::H, c: Self::H) -> Self::H {
            (self.mul_add(a.0, b.0, c.0), self.mul_add(a.1, b.1, c.1))
        }
        #[inline(always)]
        fn eight_sum(self, v: Self::H) -> f32 {
            self.sum(self.add(v.0, v.1))
        }
        #[inline(always)]
        unsafe fn dot_32<const GROUP: usize, const WIDE: bool>(
            self,
            sum: Self::H,
            q: Self::B,
            x: *const i8,
            scale: *const f32,
        ) -> Self::H {
            let zero = self.splat_int(0);
            // SAFETY: see the impl.
            unsafe {
                let first = self.splat(*scale);
                let low = self.dots::<WIDE>(zero, q.0, x);
                if GROUP == 32 {
                    // One scale: the integers are added up first.
                    let all = self.to_float(self.dots::<WIDE>(low, q.1, x.add(16)));
                    return (self.mul_add(all, first, sum.0), sum.1);
                }
                let second = self.splat(*scale.add(1));
                let high = self.dots::<WIDE>(zero, q.1, x.add(16));
                (
                    self.mul_add(self.to_float(low), first, sum.0),
                    self.mul_add(self.to_float(high), second, sum.1),
                )
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

use super::gemm_f32::Tiles;
use super::gemm_i8;
use super::isa::Isa;
#[allow(unused_imports)] // not on targets that have only the scalar level
use super::isa::Level;
use super::prepare::block;
use super::unpack::GROUPS;

/// Something that runs at a level.
pub(crate) trait Kernel {
    /// Its result.
    type Output;
    /// The work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A level's vector operations; the value is the token that its instructions may be used.
pub(crate) trait Simd: Copy {
    /// A vector of [`Simd::LANES`] f32.
    type F: Copy;
    /// A vector of [`Simd::LANES`] i32, or of four bytes in the place of each.
    type I: Copy;
    /// A vector of 32 bytes.
    type B: Copy;
    /// A vector of 8 f32.
    type H: Copy;
    /// Lanes of [`Simd::F`].
    const LANES: usize;
    /// `mul_add` is one instruction (where it is not, it is a slow function).
    const FMA: bool;
    /// [`Simd::dot_bytes`] takes signed bytes as weights; quants that need 8 bits are packed less 128 for it.
    const SIGNED_BYTES: bool;
    /// Two products of bytes may take less time than one in f32: the matrix product is compiled for two passes.
    const FAST_BYTES: bool;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// LANES numbers.
    ///
    /// # Safety
    /// `from` is valid for reading LANES f32 (any alignment).
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// LANES f16 as f32.
    ///
    /// # Safety
    /// `from` is valid for reading LANES u16 (any alignment).
    unsafe fn load_half(self, from: *const u16) -> Self::F;
    /// LANES bf16 as f32.
    ///
    /// # Safety
    /// `from` is valid for reading LANES u16 (any alignment).
    unsafe fn load_bhalf(self, from: *const u16) -> Self::F;
    /// f16 bits to f32.
    #[inline(always)]
    fn widen_halves(self, bits: &[u16; GROUPS], out: &mut [f32; GROUPS]) {
        for i in (0..GROUPS).step_by(Self::LANES) {
            // SAFETY: LANES divides GROUPS at every level.
            unsafe {
                self.store(
                    out.as_mut_ptr().add(i),
                    self.load_half(bits.as_ptr().add(i)),
                )
            };
        }
    }
    /// Writes LANES numbers.
    ///
    /// # Safety
    /// `to` is valid for writing LANES f32 (any alignment).
    unsafe fn store(self, to: *mut f32, v: Self::F);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, fused where the level has it.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, v: Self::F) -> f32;
    /// The sums of all lanes of four vectors, in a fixed order that may be another than [`Simd::sum`]'s.
    #[inline(always)]
    fn four_sums(self, v: [Self::F; 4]) -> [f32; 4] {
        v.map(|v| self.sum(v))
    }

    /// The bytes.
    fn load_bytes(self, from: &[u8; 32]) -> Self::B;
    /// Writes the bytes.
    fn store_bytes(self, to: &mut [u8; 32], v: Self::B);
    /// `a | b`.
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// Each byte `^ bits`.
    fn xor(self, v: Self::B, bits: u8) -> Self::B;
    /// Each byte shifted to the right by `shift` (left if negative), `& mask`. The mask has no bit that a shift by whole vectors
    /// would bring from a neighbouring byte.
    fn extract(self, v: Self::B, shift: i32, mask: u8) -> Self::B;
    /// The low nibbles of 16 bytes, then the high ones.
    fn nibbles(self, from: &[u8; 16]) -> Self::B;
    /// Byte j is 16 if bit j is set, else 0.
    fn fifth_bits(self, bits: u32) -> Self::B;
    /// Bytes as f32.
    fn widen_bytes(self, from: &[i8; GROUPS], to: &mut [f32; GROUPS]);
    /// LANES unsigned bytes as f32.
    ///
    /// # Safety
    /// `from` is valid for reading LANES bytes.
    unsafe fn load_unsigned(self, from: *const u8) -> Self::F;
    /// LANES signed bytes as f32.
    ///
    /// # Safety
    /// `from` is valid for reading LANES bytes.
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))] // caches are f32 there
    unsafe fn load_signed(self, from: *const i8) -> Self::F;

    /// Rounds 32 numbers to `q = x / scale` with the largest at ±127; returns the scale and the sums of both halves of `q`.
    /// A block with an infinity or a NaN gets the scale NaN, so that the product says so.
    #[inline(always)]
    fn quantize(self, x: &[f32; 32], q: &mut [i8; 32]) -> (f32, [i32; 2]) {
        block(x, q)
    }

    /// Zeros.
    fn eight_zeros(self) -> Self::H;
    /// 8 numbers.
    ///
    /// # Safety
    /// `from` is valid for reading 8 f32.
    unsafe fn eight_load(self, from: *const f32) -> Self::H;
    /// Writes 8 numbers.
    ///
    /// # Safety
    /// `to` is valid for writing 8 f32.
    unsafe fn eight_store(self, to: *mut f32, v: Self::H);
    /// `a + b`.
    fn eight_add(self, a: Self::H, b: Self::H) -> Self::H;
    /// `a · b`.
    fn eight_mul(self, a: Self::H, b: Self::H) -> Self::H;
    /// `a · b + c`.
    fn eight_mul_add(self, a: Self::H, b: Self::H, c: Self::H) -> Self::H;
    /// The sum of all lanes, in a fixed order.
    fn eight_sum(self, v: Self::H) -> f32;
    /// Adds `scale · Σ q·x` over 32 elements, spread over the lanes in any fixed way; with groups of 16 there are two scales, one
    /// for each half. Unless `WIDE` the quants are at most 127.
    ///
    /// # Safety
    /// `x` is valid for reading 32 bytes, `scale` for 32 / `GROUP` f32.
    unsafe fn dot_32<const GROUP: usize, const WIDE: bool>(
        self,
        sum: Self::H,
        q: Self::B,
        x: *const i8,
        scale: *const f32,
    ) -> Self::H;

    /// All lanes `x`.
    fn splat_int(self, x: i32) -> Self::I;
    /// LANES words.
    ///
    /// # Safety
    /// `from` is valid for reading LANES u32 (any alignment).
    unsafe fn load_int(self, from: *const u32) -> Self::I;
    /// Adds to each lane the products of its four unsigned (see [`Simd::SIGNED_BYTES`]) bytes of `w` and signed bytes of `x`. Without
    /// VNNI the bytes of `w` are at most 127.
    fn dot_bytes(self, sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// The integers as f32.
    fn to_float(self, v: Self::I) -> Self::F;

    /// Turns LANES rows of LANES words (rows `stride` words apart) into columns of an output with rows of [`PANEL`] words.
    ///
    /// # Safety
    /// All rows are valid for reading and `to` for writing (any alignment).
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32);

    /// Asks for the line of memory that holds `at` to be brought near (the second cache); any address will do.
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    /// [`gemm_i8::Tiles::all`] with the tile that fits this level's registers.
    fn int8_tiles<const GROUP: usize, const MIN: bool>(
        self,
        tiles: &gemm_i8::Tiles<'_, GROUP, MIN>,
    );

    /// [`Tiles::all`] with the tile that fits this level's registers.
    fn tiles(self, tiles: &Tiles<'_>);
}

/// The most lanes of any level.
pub(super) const MAX_LANES: usize = 16;

/// Rows of a packed panel of weights; a multiple of LANES at every level.
pub(in crate::cpu) const PANEL: usize = 32;

/// Runs `kernel` at the level of `isa`.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of a level exists only if the CPU has that level's instructions.
        Level::Avx512Vnni => unsafe { avx512::run_vnni(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { avx2::run(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::NeonDot => unsafe { neon::run_dot(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => unsafe { neon::run(kernel) },
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Level::Simd128 => wasm::run(kernel),
        _ => kernel.run(scalar::Scalar),
    }
}
