//! The generated kernel documentation.

use crate::kernel::{Access, Caps, Kernel};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// `docs/KERNELS.md`: every kernel with its formula, operands, variants and support.
pub fn kernels_markdown(kernels: &[&'static dyn Kernel]) -> String {
    let mut text = String::from(
        "# Kernels\n\nGenerated from the kernels themselves by `UPDATE_DOCS=1 cargo test -p firelight-kernels --test docs`; do not edit.\n\
         Variants are picked by the plan from shapes, types and the device; every one runs the same cases against the f64 reference.\n",
    );
    for kernel in kernels {
        let _ = writeln!(text, "\n## {}\n\n`{}`\n", kernel.name(), kernel.formula());
        text.push_str("| operand | access | shape | types |\n|---|---|---|---|\n");
        for operand in kernel.operands() {
            let access = match operand.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "in place",
            };
            let types: Vec<_> = operand.dtypes.iter().map(|d| d.name()).collect();
            let _ = writeln!(
                text,
                "| `{}` | {access} | `{}` | {} |",
                operand.name,
                operand.shape,
                types.join(" ")
            );
        }
        let variants: Vec<_> = variants(*kernel).into_iter().collect();
        let cpu = if kernel.cpu().is_some() {
            "SIMD"
        } else {
            "reference (f64, slow)"
        };
        let _ = writeln!(
            text,
            "\nGPU variants: {}. CPU: {cpu}. Cases: {}.",
            variants.join(", "),
            kernel.cases().len()
        );
        #[cfg(not(target_arch = "wasm32"))]
        for (t, _) in kernel.tunables() {
            let _ = writeln!(
                text,
                "\nTuned: `{}`, {} (default {}).",
                t.name, t.what, t.default
            );
        }
    }
    text
}

/// The variants the cases reach, over the floor and a device with everything.
fn variants(kernel: &dyn Kernel) -> BTreeSet<String> {
    let full = Caps {
        f16: true,
        subgroups: true,
        ..Caps::FLOOR
    };
    let mut names = BTreeSet::new();
    for case in kernel.cases() {
        for caps in [&Caps::FLOOR, &full] {
            if let Ok(plan) = super::planned(kernel, &case, caps) {
                let mut needs = String::new();
                if plan.f16 {
                    needs.push_str(" (f16)");
                }
                if plan.subgroups {
                    needs.push_str(" (subgroups)");
                }
                names.insert(format!("`{}`{needs}", plan.variant));
            }
        }
    }
    names
}
