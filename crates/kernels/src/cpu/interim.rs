pub mod matmul {
    #[path = "../../matmul/isa.rs"]
    mod isa;
    use crate::cpu::{SharedOut, ThreadPool};
    pub use isa::Isa;
    #[derive(Default)]
    pub struct Scratch;
    pub struct MatmulArgs<'a> {
        pub dtype: crate::DType,
        pub weight: &'a [u8],
        pub n: usize,
        pub k: usize,
        pub x: &'a [f32],
        pub t: usize,
        pub exact: bool,
        pub isa: Isa,
    }
    pub fn run(pool: &ThreadPool, a: &MatmulArgs<'_>, _s: &mut Scratch, out: SharedOut<'_, f32>, ldy: usize, col0: usize) {
        let rb = a.dtype.bytes_for(a.k).unwrap();
        pool.run(a.n, |n| {
            let mut row = vec![0f32; a.k];
            firelight_tensor::quant::dequantize_into(a.dtype, &a.weight[n * rb..(n + 1) * rb], &mut row).unwrap();
            for t in 0..a.t {
                let s: f32 = a.x[t * a.k..(t + 1) * a.k].iter().zip(&row).map(|(a, b)| a * b).sum();
                #[allow(unsafe_code)]
                unsafe { out.range(t * ldy + col0 + n, 1)[0] = s };
            }
        });
    }
}
pub mod vecmath {
    use super::matmul::Isa;
    use half::f16;
    pub fn sum_squares(_: Isa, x: &[f32]) -> f32 { x.iter().map(|v| v * v).sum() }
    pub fn dot_f32(_: Isa, a: &[f32], b: &[f32]) -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() }
    pub fn dot_f16(_: Isa, a: &[f32], b: &[f16]) -> f32 { a.iter().zip(b).map(|(a, b)| a * b.to_f32()).sum() }
    pub fn axpy_f32(_: Isa, w: f32, x: &[f32], y: &mut [f32]) { y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x) }
    pub fn axpy_f16(_: Isa, w: f32, x: &[f16], y: &mut [f32]) { y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x.to_f32()) }
    pub fn max_f32(_: Isa, x: &[f32]) -> f32 { x.iter().copied().fold(f32::NEG_INFINITY, f32::max) }
    pub fn exp(_: Isa, x: &mut [f32]) { x.iter_mut().for_each(|x| *x = x.exp()) }
    pub fn silu(_: Isa, x: &mut [f32]) { x.iter_mut().for_each(|x| *x = *x / (1.0 + (-*x).exp())) }
    pub fn gelu_tanh(_: Isa, x: &mut [f32]) { x.iter_mut().for_each(|g| *g = 0.5 * *g * (1.0 + (0.797_884_56 * (*g + 0.044715 * *g * *g * *g)).tanh())) }
}
