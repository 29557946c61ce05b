//! What a kernel is: a contract, a plan, a CPU version, a reference and cases.

use crate::cpu::Cpu;
use crate::cpu::matmul::Offer;
use crate::recorder::{Binding, Work};
use crate::tune::{Tunable, Tuning};
use crate::{Error, Result};
use firelight_tensor::DType;
use firelight_tensor::compare::Tolerance;
use std::any::Any;
use std::borrow::Cow;
use std::fmt;

/// How a call touches an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written; every element the contract names is.
    Write,
    /// Read and written in place.
    ReadWrite,
}

/// One array a kernel works on. The WGSL binds operand `i` at `@group(0) @binding(i + 1)` under [`Operand::name`].
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// The variable's name in the WGSL.
    pub name: &'static str,
    /// How it is touched.
    pub access: Access,
    /// Accepted element types.
    pub dtypes: &'static [DType],
    /// The shape in the house's dimension letters, for the documentation.
    pub shape: &'static str,
}

impl Operand {
    /// A read operand.
    pub const fn read(name: &'static str, dtypes: &'static [DType], shape: &'static str) -> Self {
        Operand {
            name,
            access: Access::Read,
            dtypes,
            shape,
        }
    }

    /// A written operand.
    pub const fn write(name: &'static str, dtypes: &'static [DType], shape: &'static str) -> Self {
        Operand {
            name,
            access: Access::Write,
            dtypes,
            shape,
        }
    }

    /// An operand changed in place.
    pub const fn read_write(
        name: &'static str,
        dtypes: &'static [DType],
        shape: &'static str,
    ) -> Self {
        Operand {
            name,
            access: Access::ReadWrite,
            dtypes,
            shape,
        }
    }
}

/// Element type and shape of one operand of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl View {
    /// Dimension `i`, or 1 beyond the last.
    pub fn dim(&self, i: usize) -> usize {
        self.shape.get(i).copied().unwrap_or(1)
    }

    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The last dimension.
    pub fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// What a call is about, without any data: the operands' types and shapes, and the parameter words.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// One view per operand.
    pub operands: &'a [View],
    /// The parameters, as the WGSL's uniform `Params` holds them.
    pub params: &'a [u32],
}

impl Call<'_> {
    /// The parameters as the kernel's struct. Zeroes stand for words that are missing.
    pub fn params<P: bytemuck::Pod>(&self) -> P {
        let mut value = P::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        let words: &[u8] = bytemuck::cast_slice(self.params);
        let n = bytes.len().min(words.len());
        bytes[..n].copy_from_slice(&words[..n]);
        value
    }
}

/// What the device can do, as far as plans care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Shaders may use `f16` (`enable f16`).
    pub f16: bool,
    /// Shaders may use subgroup operations.
    pub subgroups: bool,
    /// Workgroups per dispatch dimension.
    pub max_groups: u32,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Bytes of workgroup memory.
    pub max_shared: u32,
    /// What was measured to be best here.
    pub tuning: Tuning,
}

impl Caps {
    /// WebGPU's default limits without optional features: what every kernel must run on.
    pub const FLOOR: Caps = Caps {
        f16: false,
        subgroups: false,
        max_groups: 65_535,
        max_binding: 128 << 20,
        max_shared: 16_384,
        tuning: Tuning::NONE,
    };

    /// The number to use for this element type.
    pub fn tuned(&self, tunable: &Tunable, dtype: DType) -> u32 {
        self.tuning.get(tunable, dtype)
    }
}

/// How a call runs on a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The variant's name, by property: `vec`, `tiled`, `vec_subgroup`.
    pub variant: &'static str,
    /// WGSL parts, joined in this order.
    pub wgsl: Vec<Cow<'static, str>>,
    /// `alias NAME = TYPE;` lines put before the parts.
    pub aliases: Vec<(&'static str, &'static str)>,
    /// Values of the WGSL's `override`s.
    pub constants: Vec<(&'static str, f64)>,
    /// The variant needs `enable f16`.
    pub f16: bool,
    /// The variant needs subgroups.
    pub subgroups: bool,
    /// Workgroups.
    pub grid: [u32; 3],
}

impl Plan {
    /// A plan of one WGSL part on `groups` workgroups, folded into two dimensions where one is not enough. The shader
    /// finds its index as `id.x + id.y * num_workgroups.x` and leaves if it is out of range.
    pub fn new(
        variant: &'static str,
        wgsl: &'static str,
        groups: u64,
        caps: &Caps,
    ) -> Result<Plan> {
        let max = u64::from(caps.max_groups);
        let y = groups.div_ceil(max).max(1);
        if y > max {
            return Err(Error::Limit {
                what: "workgroups of a dispatch",
                max: max * max,
                got: groups,
            });
        }
        let grid = [groups.div_ceil(y).max(1) as u32, y as u32, 1];
        Ok(Plan {
            variant,
            wgsl: vec![wgsl.into()],
            aliases: Vec::new(),
            constants: Vec::new(),
            f16: false,
            subgroups: false,
            grid,
        })
    }

    /// The same plan with an `override` set.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: f64) -> Plan {
        self.constants.push((name, value));
        self
    }

    /// The WGSL text as the device gets it. `enable subgroups` is written for browsers only: naga knows subgroup
    /// operations without it and rejects the line.
    pub fn source(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        if self.f16 {
            text.push_str("enable f16;\n");
        }
        if self.subgroups && cfg!(target_arch = "wasm32") {
            text.push_str("enable subgroups;\n");
        }
        for (name, ty) in &self.aliases {
            let _ = writeln!(text, "alias {name} = {ty};");
        }
        for part in &self.wgsl {
            text.push_str(part);
            text.push('\n');
        }
        text
    }
}

/// Records a call of these operands and parameter words.
#[cfg(not(target_arch = "wasm32"))]
pub type Recorded = fn(&mut crate::Recorder, &[&crate::Array], &[u32]) -> Result<()>;

/// What the CPU version of a kernel gets.
pub struct CpuCall<'a, 'b> {
    /// Threads, SIMD level and scratch memory.
    pub cpu: &'b Cpu,
    /// Types, shapes and parameters.
    pub call: Call<'a>,
    /// What was measured to be best here.
    pub tuning: &'b Tuning,
    /// The read operands' bytes, in operand order.
    pub reads: &'a [&'b [u8]],
    /// The written operands' bytes, in operand order.
    pub writes: &'a mut [&'b mut [u8]],
    pub(crate) bindings: &'b [Binding],
}

impl<'b> CpuCall<'_, 'b> {
    /// Read operand `i` (counting read operands only) as elements.
    pub fn read<T: bytemuck::Pod>(&self, i: usize) -> &'b [T] {
        bytemuck::cast_slice(self.reads[i])
    }

    /// Read operand `i`, a weight, to be multiplied by the device's helpers, too; `None` where there are none.
    pub fn offer(&self, i: usize) -> Option<Offer<'b>> {
        let shares = self.cpu.shares()?;
        let mut read = self.bindings.iter().filter(|b| b.access == Access::Read);
        let binding = read.nth(i)?;
        let copies = binding.buffer.copies()?;
        Some(Offer {
            shares,
            copies,
            offset: binding.offset,
        })
    }
}

/// One listed input of a kernel's cases.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Normal numbers with this deviation; in a quantised operand, random blocks of about that size.
    Normal(f32),
    /// Exactly these numbers, repeated to fill the operand.
    Values(Vec<f32>),
    /// Exactly these words, repeated to fill the operand.
    Words(Vec<u32>),
    /// Uniform integers below this.
    Below(u32),
}

/// One test, self-test and benchmark case of a kernel: data only.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// One (dtype, shape, content) per operand.
    pub operands: Vec<(DType, Vec<usize>, Fill)>,
    /// Parameter words.
    pub params: Vec<u32>,
    /// Bound of the difference to the reference.
    pub tolerance: Tolerance,
    /// Additional bound on a CPU that quantises activations (`None`: the same).
    pub quantized_tolerance: Option<Tolerance>,
    /// Floating-point operations of the formula.
    pub flops: u64,
    /// Bytes that must at least be moved.
    pub bytes: u64,
    /// Small enough for the start-up self-test.
    pub self_test: bool,
    /// Only for the benchmark (too slow for a test).
    pub bench: bool,
}

impl Case {
    /// A case with `tolerance`, no flops counted and bytes from the operands.
    pub fn new(
        name: impl Into<String>,
        operands: Vec<(DType, Vec<usize>, Fill)>,
        params: &impl bytemuck::Pod,
        tolerance: Tolerance,
    ) -> Self {
        let bytes = operands
            .iter()
            .map(|(d, s, _)| crate::array::bytes_of(*d, s).unwrap_or(0))
            .sum();
        Case {
            name: name.into(),
            operands,
            params: words(params),
            tolerance,
            quantized_tolerance: None,
            flops: 0,
            bytes,
            self_test: false,
            bench: false,
        }
    }

    /// Also run at start-up.
    #[must_use]
    pub fn self_test(mut self) -> Self {
        self.self_test = true;
        self
    }

    /// Only benchmarked, with this many floating-point operations.
    #[must_use]
    pub fn bench(mut self, flops: u64) -> Self {
        self.bench = true;
        self.flops = flops;
        self
    }
}

/// A struct's bytes as 32-bit words.
pub fn words(params: &impl bytemuck::Pod) -> Vec<u32> {
    let bytes = bytemuck::bytes_of(params);
    bytes
        .chunks(4)
        .map(|c| {
            let mut word = [0u8; 4];
            word[..c.len()].copy_from_slice(c);
            u32::from_le_bytes(word)
        })
        .collect()
}

/// A kernel: one contract with versions that must agree. User crates implement it like the built-in ones do.
pub trait Kernel: Any + Sync {
    /// The folder's name.
    fn name(&self) -> &'static str;

    /// The formula in one line.
    fn formula(&self) -> &'static str;

    /// The operands, in binding order.
    fn operands(&self) -> &'static [Operand];

    /// Checks the shapes and picks the GPU variant. Pure: no device is touched.
    ///
    /// # Errors
    /// `InvalidInput` if shapes or parameters do not fit, `Limit` beyond the device's limits.
    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan>;

    /// The SIMD version. `None`: the reference runs on the CPU, and the support table says so.
    fn cpu(&self) -> Option<fn(&mut CpuCall<'_, '_>)> {
        None
    }

    /// The formula in f64, naive, over all operands' values in order; written operands are changed in place.
    fn reference(&self, call: &Call<'_>, values: &mut [Vec<f64>]);

    /// What a call moves and computes at least, for profiles: by default every operand once, and no products counted. `None` where it depends
    /// on the data.
    fn work(&self, call: &Call<'_>) -> Option<Work> {
        let bytes = |v: &View| crate::array::bytes_of(v.dtype, &v.shape).unwrap_or(0);
        Some(Work {
            bytes: call.operands.iter().map(bytes).sum(),
            flops: 0,
        })
    }

    /// Shapes, types, edge inputs and tolerances.
    fn cases(&self) -> Vec<Case>;

    /// Numbers that its plans, its recording or its CPU version depend on, each with calls that show which choice is fast. See [`crate::tune`].
    #[cfg(not(target_arch = "wasm32"))]
    fn tunables(&self) -> Vec<(&'static Tunable, Vec<Case>)> {
        Vec::new()
    }

    /// How models record a call of these operands, where that may be several calls.
    #[cfg(not(target_arch = "wasm32"))]
    fn recorded(&self) -> Option<Recorded> {
        None
    }
}

/// True for a kernel of this crate, by its type: whoever takes its name, or asks it for its plans, is somebody else.
#[cfg(feature = "gpu")]
pub(crate) fn is_built_in(kernel: &dyn Kernel) -> bool {
    let this = (kernel as &dyn Any).type_id();
    let mut all = crate::KERNELS.iter();
    all.any(|&k| (k as &dyn Any).type_id() == this)
}

/// The product of some parameters, which may hold anything; beyond 64 bits, which nothing equals, the largest number.
pub(crate) fn times(factors: &[u32]) -> u64 {
    factors.iter().fold(1, |n, &f| n.saturating_mul(f.into()))
}

/// Checks count, dtypes and rank-independent facts of a call against the kernel's operand table.
pub(crate) fn check_operands(kernel: &dyn Kernel, operands: &[View]) -> Result<()> {
    let table = kernel.operands();
    let name = kernel.name();
    if table.len() != operands.len() {
        return Err(Error::invalid(format!(
            "{name}: expected {} operands, got {}",
            table.len(),
            operands.len()
        )));
    }
    for (operand, view) in table.iter().zip(operands) {
        if !operand.dtypes.contains(&view.dtype) {
            let known: Vec<_> = operand.dtypes.iter().map(|d| d.name()).collect();
            return Err(Error::Unsupported(format!(
                "{name}: operand `{}` is {}; this kernel takes {}",
                operand.name,
                view.dtype,
                known.join(", ")
            )));
        }
        if view.elements() == 0 {
            return Err(Error::invalid(format!(
                "{name}: operand `{}` {:?} is empty",
                operand.name, view.shape
            )));
        }
        if view.elements() > u32::MAX as usize {
            return Err(Error::Limit {
                what: "elements of an operand",
                max: u64::from(u32::MAX),
                got: view.elements() as u64,
            });
        }
    }
    Ok(())
}

/// `Err(InvalidInput)` with this kernel's name unless `ok`.
pub fn ensure(kernel: &dyn Kernel, ok: bool, what: impl FnOnce() -> String) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(Error::invalid(format!("{}: {}", kernel.name(), what())))
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;

    /// Says that it is `linear`, and has its plans.
    struct Impostor;
    impl Kernel for Impostor {
        fn name(&self) -> &'static str {
            crate::linear::Linear.name()
        }
        fn formula(&self) -> &'static str {
            crate::linear::Linear.formula()
        }
        fn operands(&self) -> &'static [Operand] {
            crate::linear::Linear.operands()
        }
        fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
            crate::linear::Linear.plan(call, caps)
        }
        fn reference(&self, _: &Call<'_>, _: &mut [Vec<f64>]) {}
        fn cases(&self) -> Vec<Case> {
            Vec::new()
        }
    }

    #[test]
    fn only_kernels_of_this_crate_are_compiled_without_checks() {
        assert!(crate::KERNELS.iter().all(|&k| is_built_in(k)));
        assert!(!is_built_in(&Impostor));
    }

    #[test]
    fn products_of_parameters_do_not_wrap() {
        assert_eq!(times(&[3, 5, 7]), 105);
        assert_eq!(times(&[u32::MAX; 3]), u64::MAX);
    }
}
