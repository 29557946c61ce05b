//! Soft threshold, the shrinking step of wavelet denoising.
//!
//! `y = sign(x) · max(|x| − λ, 0)`, element by element. Source: Donoho 1995, De-noising by soft-thresholding.

use firelight_kernels::{
    Array, Call, Caps, Case, CpuCall, DType, Fill, Kernel, Operand, Plan, Recorder, Result,
    Tolerance, ensure,
};

/// See the module's head.
#[derive(Debug)]
pub(crate) struct SoftThreshold;

/// Uniform parameters.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    /// Elements.
    pub(crate) n: u32,
    /// What is taken off each magnitude.
    pub(crate) lambda: f32,
}

const OPERANDS: &[Operand] = &[
    Operand::read("x", &[DType::F32], "[N]"),
    Operand::write("y", &[DType::F32], "[N]"),
];

impl Kernel for SoftThreshold {
    fn name(&self) -> &'static str {
        "soft_threshold"
    }

    fn formula(&self) -> &'static str {
        "y = sign(x) · max(|x| − λ, 0)"
    }

    fn operands(&self) -> &'static [Operand] {
        OPERANDS
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let p: Params = call.params();
        ensure(self, p.lambda >= 0.0, || {
            format!("lambda {}; expected 0 or more", p.lambda)
        })?;
        for view in call.operands {
            ensure(self, view.elements() == p.n as usize, || {
                format!("{:?} for {} elements", view.shape, p.n)
            })?;
        }
        let groups = u64::from(p.n).div_ceil(64);
        Plan::new("flat", include_str!("soft_threshold.wgsl"), groups, caps)
    }

    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        Some(run)
    }

    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]) {
        let lambda = f64::from(call.params::<Params>().lambda);
        let [x, y] = values else { return };
        for (x, y) in x.iter().zip(y) {
            *y = if *x > lambda {
                x - lambda
            } else if *x < -lambda {
                x + lambda
            } else {
                0.0
            };
        }
    }

    fn cases(&self) -> Vec<Case> {
        vec![
            case("odd size", 3 * 43, 0.5, Fill::Normal(1.0)).self_test(),
            case("one element", 1, 0.5, Fill::Values(vec![-2.0])),
            case(
                "on the threshold",
                7,
                0.5,
                Fill::Values(vec![0.5, -0.5, 0.0]),
            ),
            case("no threshold", 65, 0.0, Fill::Normal(1.0)),
            case(
                "more than 65535 groups",
                64 * 65_537,
                1.0,
                Fill::Values(vec![3.0, -1.5, 0.1]),
            ),
            case("bench 4 Mi", 4 << 20, 0.5, Fill::Normal(1.0)).bench(2 * (4 << 20)),
        ]
    }
}

fn case(name: &str, n: usize, lambda: f32, x: Fill) -> Case {
    let operands = vec![
        (DType::F32, vec![n], x),
        // What an element that was forgotten would still hold.
        (DType::F32, vec![n], Fill::Values(vec![9.0])),
    ];
    let params = Params {
        n: n as u32,
        lambda,
    };
    // One subtraction, rounded once.
    Case::new(
        name,
        operands,
        &params,
        Tolerance {
            atol: 0.0,
            rtol: 6e-8,
        },
    )
}

/// The CPU version: plain enough for the compiler to vectorise, a task per 16,384 elements.
fn run(c: &mut CpuCall<'_, '_>) {
    const CHUNK: usize = 16_384;
    let lambda = c.call.params::<Params>().lambda;
    let x = c.read::<f32>(0);
    let y: &mut [f32] = bytemuck::cast_slice_mut(c.writes[0]);
    c.cpu.pool.for_chunks(y, CHUNK, |i, y| {
        for (y, x) in y.iter_mut().zip(&x[i * CHUNK..]) {
            // The formula without a branch, and without a −0.
            *y = (x - lambda).max(0.0) + (x + lambda).min(0.0);
        }
    });
}

/// `x` shrunk towards zero by `lambda`, in `x`'s shape.
///
/// # Errors
/// As [`Recorder::call`].
pub(crate) fn soft_threshold(rec: &mut Recorder, x: &Array, lambda: f32) -> Result<Array> {
    let y = rec.temp(DType::F32, x.shape())?;
    let n = x.elements() as u32;
    rec.call(&SoftThreshold, &[x, &y], &Params { n, lambda })?;
    Ok(y)
}
