//! The proof on which built-in shaders are compiled without run-time checks: no index of theirs leaves what it indexes.
//!
//! naga finds every indexing in the WGSL a plan produces: of operands, of workgroup memory, of local arrays and vectors. Each is
//! rewritten to ask first whether the index is inside, and to note where it is not. So instrumented, kernels run their cases with
//! the cases' contents, then with hostile ones (every word of every operand is anything: ids, positions, lengths, NaN), then with
//! parameters changed at random as far as the plan accepts them. What only a tuned number leads to, is run so, too. Operands are
//! bound in their exact sizes. What hangs, fails, too: loops are not checked either.
#![cfg(feature = "gpu")]

use firelight_kernels::harness::{planned, random_weight, wanted};
use firelight_kernels::tune::{On, Tunable, Tuning};
use firelight_kernels::{
    Array, Call, Caps, Case, DType, Device, Fill, GpuOptions, Holder, KERNELS, Kernel, Operand,
    Plan, Recorder, Result, Rung, View, adapters,
};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{ArraySize, Expression, ScalarKind, TypeInner};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

/// A kernel with instrumented WGSL and one more operand, in which it notes the line of an access outside.
struct Watched {
    kernel: &'static dyn Kernel,
    operands: &'static [Operand],
    texts: Mutex<HashMap<String, String>>,
}

impl Watched {
    fn new(kernel: &'static dyn Kernel) -> &'static Self {
        let mut operands = kernel.operands().to_vec();
        operands.push(Operand::read_write("outside", &[DType::U32], "[3]"));
        let texts = Mutex::default();
        let operands = operands.leak();
        Box::leak(Box::new(Watched {
            kernel,
            operands,
            texts,
        }))
    }
}

impl Kernel for Watched {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn formula(&self) -> &'static str {
        "none"
    }

    fn operands(&self) -> &'static [Operand] {
        self.operands
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let operands = &call.operands[..call.operands.len() - 1];
        let mut plan = self.kernel.plan(&Call { operands, ..*call }, caps)?;
        let source = plan.source().trim_start_matches("enable f16;\n").to_owned();
        let mut texts = self.texts.lock().expect("one thread");
        let text = texts.entry(plan.source()).or_insert_with(|| {
            let name = format!("{}/{}", self.name(), plan.variant);
            instrument(&name, &source, plan.f16, operands.len() + 1)
        });
        plan.wgsl = vec![text.clone().into()];
        plan.aliases.clear();
        Ok(plan)
    }

    fn reference(&self, _: &Call<'_>, _: &mut [Vec<f64>]) {}

    fn cases(&self) -> Vec<Case> {
        Vec::new()
    }
}

/// What an indexed type holds: so many elements, or as many as its operand has room for.
enum Length {
    Fixed(u32),
    OfOperand,
}

fn length(inner: &TypeInner, module: &naga::Module) -> Option<Length> {
    match inner {
        TypeInner::Pointer { base, .. } => length(&module.types[*base].inner, module),
        TypeInner::Array {
            size: ArraySize::Constant(n),
            ..
        } => Some(Length::Fixed(n.get())),
        TypeInner::Array { .. } => Some(Length::OfOperand),
        TypeInner::Vector { size, .. } => Some(Length::Fixed(*size as u32)),
        TypeInner::ValuePointer {
            size: Some(size), ..
        } => Some(Length::Fixed(*size as u32)),
        TypeInner::Matrix { columns, .. } => Some(Length::Fixed(*columns as u32)),
        _ => None,
    }
}

/// The WGSL with every index checked.
fn instrument(name: &str, source: &str, f16: bool, binding: usize) -> String {
    let whole = if f16 {
        format!("enable f16;\n{source}")
    } else {
        source.to_owned()
    };
    let module = naga::front::wgsl::parse_str(&whole)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&whole)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator.validate(&module).expect("valid: tests/naga.rs");
    let functions = module.functions.iter().map(|(h, f)| (f, &info[h]));
    let entries = module.entry_points.iter().enumerate();
    let entries = entries.map(|(i, e)| (&e.function, info.get_entry_point(i)));

    // What to put where.
    let mut inserts = BTreeMap::new();
    for (function, info) in functions.chain(entries) {
        for (handle, expression) in function.expressions.iter() {
            let (base, index) = match expression {
                Expression::Access { base, index } => (*base, Some(*index)),
                Expression::AccessIndex { base, .. } => (*base, None),
                _ => continue,
            };
            let Some(length) = length(info[base].ty.inner_with(&module.types), &module) else {
                continue;
            };
            // A constant index of something of known length was checked when the text was read.
            if index.is_none() && matches!(length, Length::Fixed(_)) {
                continue;
            }
            let span = function
                .expressions
                .get_span(handle)
                .to_range()
                .expect("a place in the text");
            let text = &whole[span.clone()];
            assert!(
                text.ends_with(']'),
                "{name}: an access that is not `…[…]`: {text}"
            );
            let mut depth = 0;
            let open = text.rfind(|c| {
                depth += i32::from(c == ']') - i32::from(c == '[');
                c == '[' && depth == 0
            });
            let open = span.start + open.expect("a bracket") + 1;
            let limit = match length {
                Length::Fixed(n) => format!("{n}u"),
                Length::OfOperand => format!("arrayLength(&{})", &whole[span.start..open - 1]),
            };
            let signed = index.is_some_and(|i| {
                info[i].ty.inner_with(&module.types).scalar_kind() == Some(ScalarKind::Sint)
            });
            let line = whole[..open].lines().count();
            inserts.insert(
                open,
                if signed {
                    "in_bounds(u32("
                } else {
                    "in_bounds(("
                }
                .to_owned(),
            );
            inserts.insert(span.end - 1, format!("), {limit}, {line}u)"));
        }
    }
    assert!(!inserts.is_empty(), "{name}: no access found");
    let mut text = String::new();
    let mut done = 0;
    for (at, what) in inserts {
        text.push_str(&whole[done..at]);
        text.push_str(&what);
        done = at;
    }
    text.push_str(&whole[done..]);
    let text = text.trim_start_matches("enable f16;\n");
    format!(
        "{text}
@group(0) @binding({binding}) var<storage, read_write> outside: array<atomic<u32>>;
fn in_bounds(i: u32, length: u32, line: u32) -> u32 {{
  if i >= length {{
    atomicMax(&outside[0], line);
    atomicStore(&outside[1], i);
    atomicStore(&outside[2], length);
  }}
  return i;
}}
"
    )
}

/// Another seed is another search.
const SEED: u64 = 7;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 32) as u32
    }

    /// A word that somebody forgot to expect.
    fn hostile(&mut self) -> u32 {
        match self.word() % 8 {
            0 => u32::MAX,
            1 => u32::MAX - self.word() % 300,
            2 => 0x8000_0000 - self.word() % 3,
            3 | 4 => self.word() % 400,
            5 => 0,
            _ => self.word(),
        }
    }
}

fn contents(bytes: u64, random: &mut Random, fill: Option<(DType, &Fill)>) -> Vec<u8> {
    let words = bytes.div_ceil(4) as usize;
    let mut out: Vec<u8> = match fill {
        None => (0..words)
            .flat_map(|_| random.hostile().to_le_bytes())
            .collect(),
        Some((_, Fill::Words(list))) => list
            .iter()
            .cycle()
            .take(words)
            .flat_map(|w| w.to_le_bytes())
            .collect(),
        Some((_, Fill::Below(n))) => (0..words)
            .flat_map(|_| (random.word() % (*n).max(1)).to_le_bytes())
            .collect(),
        Some((DType::F32, Fill::Values(list))) => list
            .iter()
            .cycle()
            .take(words)
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Some((dtype, _)) => {
            let mut bytes = vec![0; bytes as usize];
            random_weight(dtype, &mut bytes, 1.0, 1).expect("a floating type");
            bytes
        }
    };
    out.truncate(bytes as usize);
    out
}

/// Runs a call and says where it went outside, if it did.
fn outside(
    device: &Device,
    kernel: &'static Watched,
    arrays: &[&Array],
    params: &[u32],
) -> Result<Option<String>> {
    let note = device.upload(DType::U32, &[3], &[0; 12], Holder::User)?;
    let operands: Vec<&Array> = arrays.iter().copied().chain([&note]).collect();
    let mut rec = Recorder::new(device);
    rec.call_words(kernel, &operands, params.to_vec())?;
    rec.finish().expect("compiles").submit()?;
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&pollster::block_on(device.read(&note))?);
    if words[0] == 0 {
        return Ok(None);
    }
    let views: Vec<View> = operands
        .iter()
        .map(|a| View {
            dtype: a.dtype(),
            shape: a.shape().to_vec(),
        })
        .collect();
    let plan = kernel.plan(
        &Call {
            operands: &views,
            params,
        },
        device.caps(),
    )?;
    let text = plan.source();
    let line = text.lines().nth(words[0] as usize - 1).unwrap_or_default();
    Ok(Some(format!(
        "{}: index {} of {} in `{line}`",
        plan.variant, words[1], words[2]
    )))
}

/// The cases of one kernel, or those of them that run what is not among `known`, to which all that is run is added; what was found, and how many
/// runs it took.
fn check(
    device: &Device,
    kernel: &'static dyn Kernel,
    with_params: bool,
    only_new: bool,
    known: &mut HashSet<String>,
) -> (Vec<String>, usize) {
    let watched = Watched::new(kernel);
    let (mut found, mut runs, mut random) = (Vec::new(), 0, Random(SEED));
    let mut seen = HashSet::new();
    for case in kernel
        .cases()
        .iter()
        .filter(|c| !c.bench && wanted(device, c))
    {
        // Only more of the same.
        if case.bytes > 1 << 20 {
            continue;
        }
        let plan = planned(kernel, case, device.caps()).expect("its own case");
        let new = known.insert(format!("{}{:?}", plan.source(), plan.constants));
        if only_new && !new {
            continue;
        }
        let array = |(dtype, shape, _): &(DType, Vec<usize>, Fill)| {
            device.array(*dtype, shape, Holder::User)
        };
        let arrays: Vec<Array> = case
            .operands
            .iter()
            .map(|o| array(o).expect("memory"))
            .collect();
        let refs: Vec<&Array> = arrays.iter().collect();
        let mut run = |what: &str, params: &[u32], own: bool, random: &mut Random| {
            for (a, (dtype, _, fill)) in arrays.iter().zip(&case.operands) {
                let bytes = contents(a.nbytes(), random, own.then_some((*dtype, fill)));
                device.write(a, &bytes).expect("written");
            }
            let call = || outside(device, watched, &refs, params);
            let result = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
                Ok(Ok(result)) => result,
                // Parameters that the plan refuses are no finding.
                Ok(Err(_)) => return,
                Err(_) => Some("the plan panicked".to_owned()),
            };
            runs += 1;
            found.extend(result.map(|r| format!("{} `{}`, {what}: {r}", kernel.name(), case.name)));
        };
        run("its own contents", &case.params, true, &mut random);
        run("any contents", &case.params, false, &mut random);
        if !with_params || !seen.insert(plan.source()) {
            continue;
        }
        for i in 0..case.params.len() {
            let was = case.params[i];
            for new in [
                0,
                was.wrapping_add(1),
                was.wrapping_mul(2),
                was / 2,
                1 << 30,
                random.hostile(),
            ] {
                let mut params = case.params.clone();
                params[i] = new;
                // Two that make up for each other.
                if let Some(j) = params
                    .len()
                    .checked_sub(1 + random.word() as usize % params.len())
                    .filter(|_| random.word() % 4 == 0)
                {
                    params[j] = [was, params[j].wrapping_mul(2), random.hostile()]
                        [random.word() as usize % 3];
                }
                run(
                    &format!("parameters {params:?}"),
                    &params,
                    false,
                    &mut random,
                );
            }
        }
    }
    (found, runs)
}

/// Every choice of every number that is not its default, for one element type: where a variant reads does not depend on it. Not
/// the one without subgroups: the last rung has none.
fn other_choices() -> Vec<Tuning> {
    let all = KERNELS.iter().flat_map(|k| k.tunables());
    let mut tunings = Vec::new();
    let on_gpu = |t: &Tunable| t.on == On::Gpu && t.name != "linear.subgroups";
    for (tunable, _) in all.filter(|(t, _)| on_gpu(t)) {
        let others = tunable.choices.iter().filter(|v| **v != tunable.default);
        tunings.extend(others.map(|&value| {
            Tuning::NONE
                .with(tunable, DType::Q4_1, value)
                .expect("a choice")
        }));
    }
    tunings
}

#[test]
fn no_index_leaves_what_it_indexes() {
    let name = "no_index_leaves_what_it_indexes";
    let found = firelight_testing::gpu_or_skip(name, || {
        let found = pollster::block_on(adapters());
        if found.is_empty() {
            Err("no GPU adapter")
        } else {
            Ok(found)
        }
    });
    let Some(found) = found else { return };
    let adapter = &found[0];
    let mut wrong = Vec::new();
    let tuned = other_choices();
    for rung in [adapter.best_rung(), Rung::GpuF32] {
        let options = GpuOptions {
            adapter: Some(adapter.index),
            rung: Some(rung),
            ..Default::default()
        };
        let device = pollster::block_on(Device::gpu(&options)).expect("a device");
        for &kernel in KERNELS {
            // Parameters are the plan's business, whatever the rung.
            let with_params = rung == adapter.best_rung();
            let mut known = HashSet::new();
            let (found, runs) = check(&device, kernel, with_params, false, &mut known);
            assert!(runs > 0, "{} ran nothing", kernel.name());
            wrong.extend(found.into_iter().take(9));
            for tuning in &tuned {
                let device = device.tuned(tuning.clone());
                let (found, _) = check(&device, kernel, with_params, true, &mut known);
                wrong.extend(found.into_iter().take(9));
            }
        }
        if adapter.best_rung() == Rung::GpuF32 {
            break;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} found:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The proof can fail: a shader that trusts an index it reads, and one that goes one too far.
#[test]
fn a_shader_that_goes_too_far_is_found_out() {
    struct TooFar(&'static str);
    impl Kernel for TooFar {
        fn name(&self) -> &'static str {
            "too_far"
        }
        fn formula(&self) -> &'static str {
            "none"
        }
        fn operands(&self) -> &'static [Operand] {
            const OPERANDS: &[Operand] = &[
                Operand::read("x", &[DType::U32], "[N]"),
                Operand::write("y", &[DType::U32], "[N]"),
            ];
            OPERANDS
        }
        fn plan(&self, _: &Call<'_>, caps: &Caps) -> Result<Plan> {
            let mut plan = Plan::new(
                "one",
                "struct Params { n: u32 }\n@group(0) @binding(0) var<uniform> p: Params;\n@group(0) @binding(1) var<storage, read> x: array<u32>;\n@group(0) @binding(2) var<storage, read_write> y: array<u32>;\nvar<workgroup> four: array<u32, 4>;",
                1,
                caps,
            )?;
            plan.wgsl.push(format!("@compute @workgroup_size(1) fn main() {{ for (var i = 0u; i < p.n; i += 1u) {{ {} }} }}", self.0).into());
            Ok(plan)
        }
        fn reference(&self, _: &Call<'_>, _: &mut [Vec<f64>]) {}
        fn cases(&self) -> Vec<Case> {
            let any = firelight_kernels::Tolerance {
                atol: 0.0,
                rtol: 0.0,
            };
            let operand = || (DType::U32, vec![4], Fill::Words(vec![3, 2, 1, 0]));
            vec![Case::new("four", vec![operand(), operand()], &4u32, any)]
        }
    }
    let name = "a_shader_that_goes_too_far_is_found_out";
    let open = || pollster::block_on(Device::gpu(&GpuOptions::default()));
    let Some(device) = firelight_testing::gpu_or_skip(name, open) else {
        return;
    };
    for (body, good) in [
        ("y[i] = x[i];", true),
        ("y[i] = x[i + 1u];", false),
        ("y[i + 1u] = x[i];", false),
        ("y[i] = x[min(x[i], 3u)];", true),
        ("y[i] = x[x[i]];", false),
        ("four[x[i] & 3u] = 1u;", true),
        ("four[x[i]] = 1u;", false),
        ("var v = vec4<u32>(); v[x[i]] = 1u; y[i] = v.x;", false),
    ] {
        let kernel: &'static TooFar = Box::leak(Box::new(TooFar(body)));
        let (found, _) = check(&device, kernel, false, false, &mut HashSet::new());
        assert_eq!(found.is_empty(), good, "{body}: {found:?}");
    }
}
