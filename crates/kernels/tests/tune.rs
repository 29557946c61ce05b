//! Every choice that may be tuned answers right; a wrong one is found out, and not taken however fast it is.
#![cfg(feature = "gpu")]

use firelight_kernels::harness::run_recorded;
use firelight_kernels::tune::{On, Pick, Tunable, TuneOptions, Tuned, Tuning, prove, tune};
use firelight_kernels::{
    Call, Caps, Case, CpuOptions, DType, Device, Fill, GpuOptions, KERNELS, Kernel, Operand, Plan,
    Result, Tolerance, adapters,
};
use firelight_testing::gpu_or_skip;
use pollster::block_on;
use std::time::Duration;

/// The best rung of the first adapter.
fn gpu(test: &str) -> Option<Device> {
    let found = block_on(adapters());
    gpu_or_skip(test, || match found.is_empty() {
        true => Err("no GPU adapter"),
        false => Ok(block_on(Device::gpu(&GpuOptions::default())).expect("a device")),
    })
}

fn processor() -> Device {
    let threads = Some(2);
    let options = CpuOptions {
        threads,
        ..Default::default()
    };
    Device::cpu(&options).expect("a CPU")
}

/// Types that differ in what reading them takes, and those of caches.
const TYPES: [DType; 5] = [DType::F32, DType::F16, DType::Q4_1, DType::Q8_0, DType::Q6K];

fn every_choice(device: &Device) {
    let on = if device.is_gpu() {
        On::Gpu
    } else {
        On::Threads
    };
    let all = KERNELS.iter().flat_map(|k| k.tunables());
    let mut asked = 0;
    for (tunable, trials) in all.filter(|(t, _)| t.on == on) {
        assert!(tunable.choices.contains(&tunable.default), "{tunable:?}");
        let mut run = 0;
        for dtype in TYPES {
            if !trials
                .iter()
                .any(|c| c.operands[tunable.operand].0 == dtype)
            {
                continue;
            }
            for &value in tunable.choices {
                run += block_on(prove(device, KERNELS, tunable, dtype, value)).expect("right");
            }
        }
        let optional = tunable.name == "linear.subgroups" && !device.caps().subgroups;
        assert!(run > 0 || optional, "{}: no case is changed", tunable.name);
        asked += 1;
    }
    assert!(asked > 0);
}

#[test]
fn every_choice_on_a_gpu_answers_like_the_reference() {
    if let Some(device) = gpu("every_choice_on_a_gpu_answers_like_the_reference") {
        every_choice(&device);
    }
}

#[test]
fn every_choice_on_the_processor_answers_like_the_reference() {
    every_choice(&processor());
}

/// Calls as models record them, several for one where that is faster.
#[test]
fn attention_as_it_is_recorded_answers_like_the_reference() {
    let name = "attention_as_it_is_recorded_answers_like_the_reference";
    let Some(device) = gpu(name) else { return };
    let attention = &firelight_kernels::attention::Attention;
    let long = |c: &Case| !c.bench && c.name.contains("1501") && !c.name.starts_with("f16");
    let mut run = 0;
    for case in attention.cases().iter().filter(|c| long(c)) {
        let outcome = block_on(run_recorded(&device, attention, case)).expect("runs");
        assert!(outcome.passed(), "{outcome:?}");
        run += 1;
    }
    assert!(run > 0);
}

/// Doubles its elements: slowly, quickly, or more quickly and not all of them.
struct Double;

static WAY: Tunable = Tunable {
    name: "double.way",
    what: "how",
    on: On::Gpu,
    operand: 0,
    default: 0,
    choices: &[0, 1, 2],
};

const WGSL: &str = "
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
override WAY: u32 = 0u;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if i >= p.n || (WAY == 2u && i % 64u == 63u) { return; }
  var sum = 0.0;
  let rounds = select(1u, 20000u, WAY == 0u);
  for (var r = 0u; r < rounds; r += 1u) { sum = max(sum, x[(i + r) % p.n]); }
  y[i] = select(2.0 * x[i], sum, sum > 1e30);
}
";

impl Kernel for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn formula(&self) -> &'static str {
        "y = 2 x"
    }

    fn operands(&self) -> &'static [Operand] {
        const {
            &[
                Operand::read("x", &[DType::F32], "[N]"),
                Operand::write("y", &[DType::F32], "[N]"),
            ]
        }
    }

    fn plan(&self, call: &Call<'_>, caps: &Caps) -> Result<Plan> {
        let groups = call.operands[0].elements().div_ceil(64) as u64;
        let way = caps.tuned(&WAY, DType::F32);
        Ok(Plan::new("way", WGSL, groups, caps)?.constant("WAY", f64::from(way)))
    }

    fn reference(&self, _: &Call<'_>, values: &mut [Vec<f64>]) {
        values[1] = values[0].iter().map(|x| 2.0 * x).collect();
    }

    fn cases(&self) -> Vec<Case> {
        let tolerance = Tolerance {
            atol: 1e-6,
            rtol: 1e-6,
        };
        let case = |n: usize| {
            let operands = vec![
                (DType::F32, vec![n], Fill::Normal(1.0)),
                (DType::F32, vec![n], Fill::Values(vec![7.0])),
            ];
            Case::new(format!("{n}"), operands, &(n as u32), tolerance)
        };
        vec![case(100), case(1000)]
    }

    fn tunables(&self) -> Vec<(&'static Tunable, Vec<Case>)> {
        vec![(&WAY, self.cases())]
    }
}

fn tuned(device: &Device, go_on: &dyn Fn() -> bool) -> Tuned {
    let options = TuneOptions {
        kernels: &[&Double],
        budget: Duration::from_secs(600),
        go_on,
        progress: &mut |_, _, _| (),
    };
    block_on(tune(device, options)).expect("tuned")
}

#[test]
fn the_fastest_choice_that_is_right_is_taken() {
    let Some(device) = gpu("the_fastest_choice_that_is_right_is_taken") else {
        return;
    };
    let found = tuned(&device, &|| true);
    let [pick] = &found.picks[..] else {
        panic!("{found:?}")
    };
    let Pick { value, wrong, .. } = pick;
    assert_eq!(*value, 1, "{pick:?}");
    assert!(pick.gain() > 1.1, "{pick:?}");
    assert!(matches!(&wrong[..], [(2, what)] if what.contains("double")));
    assert!(pick.speeds.iter().all(|(v, _)| *v != 2), "{pick:?}");
    assert_eq!(found.tuning.get(&WAY, DType::F32), 1);
    assert!(found.left.is_empty());
    // In use.
    let device = device.tuned(found.tuning);
    assert_eq!(device.caps().tuned(&WAY, DType::F32), 1);
}

#[test]
fn without_time_nothing_is_chosen() {
    let Some(device) = gpu("without_time_nothing_is_chosen") else {
        return;
    };
    let found = tuned(&device, &|| false);
    assert!(found.tuning.is_empty() && found.picks.is_empty());
    assert_eq!(found.left, [("double.way", DType::F32)]);
}

#[test]
fn only_listed_choices_can_be_set() {
    let e = Tuning::NONE.with(&WAY, DType::F32, 3);
    assert!(e.expect_err("no choice").to_string().contains("double.way"));
    let one = Tuning::NONE.with(&WAY, DType::F32, 1).expect("a choice");
    assert_eq!(one.get(&WAY, DType::F32), 1);
    assert_eq!(one.get(&WAY, DType::F16), 0);
}
