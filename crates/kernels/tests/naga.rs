//! Every WGSL the plans can produce, without a GPU: parses, validates, keeps WebGPU's default limits, binds what the operand
//! table says.

use firelight_kernels::harness::planned;
use firelight_kernels::tune::Tuning;
use firelight_kernels::{Access, Caps, KERNELS, Kernel, Plan};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::HashSet;

/// Without features, with all, and with every choice of every number for all types it may be chosen for.
fn all_caps() -> Vec<Caps> {
    let full = Caps {
        f16: true,
        subgroups: true,
        ..Caps::FLOOR
    };
    let mut all = vec![Caps::FLOOR, full];
    for (tunable, cases) in KERNELS.iter().flat_map(|k| k.tunables()) {
        all.extend(tunable.choices.iter().map(|&value| {
            let tuning = cases.iter().fold(Tuning::NONE, |tuning, case| {
                let dtype = case.operands[tunable.operand].0;
                tuning.with(tunable, dtype, value).expect("a choice")
            });
            Caps {
                tuning,
                ..Caps::FLOOR
            }
        }));
    }
    all
}

fn plans(kernel: &dyn Kernel, all_caps: &[Caps]) -> Vec<(String, Plan)> {
    let mut seen = HashSet::new();
    let mut plans = Vec::new();
    for case in kernel.cases() {
        for caps in all_caps {
            let plan = planned(kernel, &case, caps)
                .unwrap_or_else(|e| panic!("{} `{}`: {e}", kernel.name(), case.name));
            if seen.insert(plan.source()) {
                plans.push((
                    format!("{}/{} `{}`", kernel.name(), plan.variant, case.name),
                    plan,
                ));
            }
        }
    }
    plans
}

#[test]
fn every_shader_validates_within_the_default_limits() {
    let all_caps = all_caps();
    for &kernel in KERNELS {
        for (name, plan) in plans(kernel, &all_caps) {
            let source = plan.source();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&source)));
            // unpack2x16float: in WebGPU without a feature, behind a capability in naga.
            let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
            if plan.f16 {
                capabilities |= Capabilities::SHADER_FLOAT16;
            }
            if plan.subgroups {
                capabilities |= Capabilities::SUBGROUP;
            }
            let mut validator = Validator::new(ValidationFlags::all(), capabilities);
            validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
            validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
            validator
                .validate(&module)
                .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&source)));

            let entry = &module.entry_points[0];
            assert_eq!(
                (module.entry_points.len(), entry.name.as_str()),
                (1, "main"),
                "{name}"
            );
            assert!(
                entry.workgroup_size.iter().product::<u32>() <= 256,
                "{name}: invocations"
            );
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).expect("layout");
            let (mut shared, mut storage) = (0, 0);
            for (_, var) in module.global_variables.iter() {
                match var.space {
                    naga::AddressSpace::WorkGroup => shared += layouter[var.ty].size,
                    naga::AddressSpace::Storage { access } => {
                        storage += 1;
                        let binding = var.binding.expect("a binding");
                        let operand = &kernel.operands()[binding.binding as usize - 1];
                        assert_eq!(
                            var.name.as_deref(),
                            Some(operand.name),
                            "{name}: binding name"
                        );
                        let written = access.contains(naga::StorageAccess::STORE);
                        assert_eq!(
                            written,
                            operand.access != Access::Read,
                            "{name}: {}",
                            operand.name
                        );
                    }
                    naga::AddressSpace::Uniform => {
                        assert_eq!(var.binding.map(|b| b.binding), Some(0), "{name}: params");
                        assert!(layouter[var.ty].size <= 256, "{name}: params too large");
                    }
                    _ => {}
                }
            }
            assert!(
                shared <= Caps::FLOOR.max_shared,
                "{name}: {shared} bytes of workgroup memory"
            );
            assert!(storage <= 8, "{name}: {storage} storage buffers");
            assert_eq!(storage, kernel.operands().len(), "{name}: operands bound");
        }
    }
}

#[test]
fn every_wgsl_file_has_its_four_line_header() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for folder in std::fs::read_dir(root)
        .expect("src")
        .flatten()
        .filter(|e| e.path().is_dir())
    {
        if folder.file_name() == "dequant" {
            continue;
        }
        for file in std::fs::read_dir(folder.path())
            .expect("a folder")
            .flatten()
        {
            if file.path().extension().is_some_and(|e| e == "wgsl") {
                let text = std::fs::read_to_string(file.path()).expect("text");
                let head: Vec<_> = text.lines().take_while(|l| l.starts_with("//")).collect();
                let path = file.path();
                assert!(
                    head.len() >= 4,
                    "{}: {} header lines",
                    path.display(),
                    head.len()
                );
                assert!(
                    head.iter().any(|l| l.starts_with("// Operands:")),
                    "{}",
                    path.display()
                );
                assert!(
                    head.iter().any(|l| l.starts_with("// Source:")),
                    "{}",
                    path.display()
                );
                checked += 1;
            }
        }
    }
    assert!(checked >= KERNELS.len());
}
