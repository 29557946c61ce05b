//! What doctor found, for people.

use super::{DoctorArgs, Proof, cores, free_bytes, isas};
use crate::commands::models;
use crate::{format, load};
use firelight_kernels::AdapterReport;
use firelight_runtime::Report;
use firelight_runtime::source::Resolver;
use firelight_runtime::tuning::TuningUse;

fn yes(b: bool) -> &'static str {
    if b { "yes" } else { "no" }
}

/// Binary units: limits of devices are powers of two.
fn binary(n: u64) -> String {
    match n {
        0..0x10_0000 => format!("{} KiB", n >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", n >> 20),
        _ => format!("{:.1} GiB", n as f64 / f64::from(1u32 << 30)),
    }
}

fn shown_adapter(a: &AdapterReport) -> String {
    let kind = if a.software {
        "software, no real GPU"
    } else {
        "hardware"
    };
    let subgroups = match a.subgroups {
        true => format!("yes, {} to {} wide", a.subgroup_size.0, a.subgroup_size.1),
        false => "no".to_owned(),
    };
    format!(
        "  {} {} · {} · {kind}\n      driver {}\n      f16 {} · subgroups {subgroups} · rungs from {} down\n      \
         limits: binding {} · buffer {} · workgroup memory {} · {} storage buffers\n",
        a.index,
        format::harmless(&a.name),
        a.backend,
        format::harmless(&a.driver),
        yes(a.f16),
        a.best_rung(),
        binary(a.max_binding),
        binary(a.max_buffer),
        binary(u64::from(a.max_shared)),
        a.max_storage_buffers
    )
}

fn shown_proof(p: &Proof) -> String {
    let Some(device) = &p.device else {
        return format!(
            "  rung {}: not here: {}\n",
            p.rung,
            p.error.as_deref().unwrap_or_default()
        );
    };
    let verdict = if p.passed {
        "computes right"
    } else {
        "COMPUTES WRONG, not used"
    };
    let mut text = format!(
        "  rung {} on {}: {verdict}\n",
        p.rung,
        format::harmless(device)
    );
    let mut table = vec![
        ["kernel", "variant", "cases", "max diff", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    for r in &p.kernels {
        let word = if r.ok {
            "ok".to_owned()
        } else {
            format!("FAILED {}", r.failure.as_deref().unwrap_or_default())
        };
        table.push(vec![
            r.kernel.into(),
            r.variant.into(),
            r.cases.to_string(),
            format!("{:.2e}", r.max_abs),
            word,
        ]);
    }
    for line in format::table(&table).lines() {
        text.push_str(&format!("    {line}\n"));
    }
    if let Some(error) = &p.error {
        text.push_str(&format!("    stopped: {error}\n"));
    }
    text.push_str("    (differences are absolute; each case has its own bound");
    if p.rounds {
        text.push_str(", and `linear` meets activations rounded to 8 bits unless --exact is given");
    }
    text.push_str(")\n");
    text
}

fn shown_tuning(tuning: &TuningUse) -> String {
    match tuning {
        TuningUse::None => "kernels at their defaults (not measured: firelight tune)".to_owned(),
        TuningUse::Used { file, chosen } => format!(
            "kernels as measured here, {} other than the default: {}",
            format::count(*chosen, "number"),
            file.display()
        ),
        TuningUse::Ignored { file, why } => format!(
            "kernels at their defaults; {} is NOT USED: {}",
            file.display(),
            format::harmless(why)
        ),
    }
}

/// The whole report.
pub(super) fn shown(
    found: &[AdapterReport],
    report: Option<&Report>,
    failure: Option<&str>,
    proofs: &[Proof],
    resolver: &Resolver,
    args: &DoctorArgs,
) -> String {
    let mut text = format!(
        "firelight {} on {} {}\n\nGPU adapters\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    for a in found {
        text.push_str(&shown_adapter(a));
    }
    if found.is_empty() {
        text.push_str("  none found: no GPU, or no driver for it (on Linux a Vulkan driver)\n");
    }
    text.push_str(&format!(
        "\nProcessor\n  {} · {}\n",
        isas().join(", "),
        format::count(cores(), "core")
    ));
    text.push_str("\nDevice in use\n");
    match report {
        Some(r) => {
            text.push_str(&format!(
                "  {} (rung {})",
                format::harmless(&r.device),
                r.rung
            ));
            text.push_str(&load::why(r, &args.engine).replace('\n', "\n  "));
            text.push_str(&format!("\n  {}\n", shown_tuning(&r.tuning)));
        }
        None => text.push_str(&format!("  NONE: {}\n", failure.unwrap_or_default())),
    }
    text.push_str("\nSelf-test\n");
    for p in proofs {
        text.push_str(&shown_proof(p));
    }
    let o = resolver.options();
    text.push_str("\nModels\n");
    for (what, dir) in [("cache", &o.cache_dir), ("hub cache", &o.hub.cache_dir)] {
        let free = free_bytes(resolver, dir).map_or("unknown".to_owned(), format::bytes);
        text.push_str(&format!(
            "  {what} {} ({free} free on its disk)\n",
            dir.display()
        ));
    }
    let table: Vec<Vec<String>> = resolver
        .list()
        .iter()
        .map(|s| {
            vec![
                s.entry.name.clone(),
                format::bytes(s.entry.size()),
                models::state(s),
            ]
        })
        .collect();
    for line in format::table(&table).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}
