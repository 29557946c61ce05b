//! `firelight doctor`: which devices there are, which one runs and why, proof that it computes right, cache and disk.

use super::models;
use crate::args::EngineArgs;
use crate::{FAILED, OK, format, interrupt, json, load, ui};
use anyhow::Result;
use firelight_kernels::harness::SelfTest;
use firelight_kernels::{AdapterReport, Isa, adapters};
use firelight_runtime::source::Resolver;
use firelight_runtime::{Engine, EngineOptions, Report, Rung};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// See the module's head.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Test every rung that runs here, not only the one in use
    #[arg(long)]
    all: bool,
    /// One JSON object with the same facts
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Exit code 0: the device in use computes right; 1: it does not, or there is none.

Examples:
  firelight doctor
  firelight doctor --all
  firelight doctor --device gpu --adapter 1
  firelight doctor --json";

/// The self-test of one rung, one row per kernel and variant.
#[derive(Serialize)]
struct Proof {
    rung: &'static str,
    device: Option<String>,
    passed: bool,
    /// Activations are rounded to 8 bits for quantised weights.
    rounds: bool,
    /// Why there is no device on this rung, or what stopped the test.
    error: Option<String>,
    kernels: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    kernel: &'static str,
    variant: &'static str,
    cases: usize,
    max_abs: f64,
    ok: bool,
    failure: Option<String>,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<u8> {
    interrupt::install()?;
    let resolver = load::resolver()?;
    let found = pollster::block_on(adapters());
    let engine = load::engine(&args.engine);
    let (report, failure) = match engine {
        Ok(engine) => (Some(engine.report()), None),
        Err(e) => (None, Some(ui::chain(&e))),
    };
    let mut proofs: Vec<Proof> = report
        .iter()
        .map(|r| proof_of_report(r, args.engine.exact))
        .collect();
    if args.all {
        let rest = Rung::ALL
            .into_iter()
            .filter(|r| report.as_ref().is_none_or(|p| p.rung != *r));
        proofs.extend(rest.map(|rung| proof_of_rung(rung, &args.engine)));
    }
    if args.json {
        print_json(
            &found,
            report.as_ref(),
            failure.as_deref(),
            &proofs,
            &resolver,
        )?;
    } else {
        let text = shown(
            &found,
            report.as_ref(),
            failure.as_deref(),
            &proofs,
            &resolver,
            args,
        );
        ui::to_stdout(&text)?;
    }
    // Rungs that are not there are no fault; one that computes wrong is.
    let right = proofs.iter().all(|p| p.passed || p.device.is_none());
    Ok(if report.is_some() && right {
        OK
    } else {
        FAILED
    })
}

fn proof_of_report(report: &Report, exact: bool) -> Proof {
    let empty = SelfTest::default();
    let test = report.self_test.as_ref().unwrap_or(&empty);
    Proof {
        rung: report.rung.name(),
        device: Some(report.device.clone()),
        passed: test.passed(),
        rounds: !report.rung.is_gpu() && !exact,
        error: test.error.clone(),
        kernels: rows(test),
    }
}

/// Opens the rung without the test first, so that what fails can be shown case by case.
fn proof_of_rung(rung: Rung, args: &EngineArgs) -> Proof {
    let options = EngineOptions {
        rung: Some(rung),
        self_test: false,
        ..args.options()
    };
    let options = EngineOptions {
        device: firelight_runtime::DeviceChoice::Auto,
        ..options
    };
    match pollster::block_on(Engine::new(options)) {
        Ok(engine) => {
            let test = pollster::block_on(firelight_kernels::harness::self_test(&engine.device()));
            proof_of_report(
                &Report {
                    self_test: Some(test),
                    ..engine.report()
                },
                args.exact,
            )
        }
        Err(e) => Proof {
            rung: rung.name(),
            device: None,
            passed: false,
            rounds: false,
            error: Some(e.to_string()),
            kernels: Vec::new(),
        },
    }
}

/// One row per kernel and variant, in the order tested.
fn rows(test: &SelfTest) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for o in &test.outcomes {
        let known = rows
            .iter()
            .position(|r| r.kernel == o.kernel && r.variant == o.variant);
        let at = known.unwrap_or_else(|| {
            let (kernel, variant) = (o.kernel, o.variant);
            rows.push(Row {
                kernel,
                variant,
                cases: 0,
                max_abs: 0.0,
                ok: true,
                failure: None,
            });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.cases += 1;
        row.max_abs = row.max_abs.max(o.max_abs);
        row.ok &= o.passed();
        if let (None, Some(what)) = (&row.failure, &o.failure) {
            row.failure = Some(format!("`{}`: {what}", o.case));
        }
    }
    rows
}

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

fn shown(
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
            text.push('\n');
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

fn print_json(
    found: &[AdapterReport],
    report: Option<&Report>,
    failure: Option<&str>,
    proofs: &[Proof],
    resolver: &Resolver,
) -> Result<()> {
    let adapters: Vec<_> = found
        .iter()
        .map(|a| {
            json!({
                "index": a.index, "name": a.name, "backend": a.backend, "driver": a.driver, "software": a.software,
                "f16": a.f16, "subgroups": a.subgroups, "subgroup_size": [a.subgroup_size.0, a.subgroup_size.1],
                "best_rung": a.best_rung().name(), "max_binding": a.max_binding, "max_buffer": a.max_buffer,
                "max_workgroup_memory": a.max_shared, "max_storage_buffers": a.max_storage_buffers,
            })
        })
        .collect();
    let o = resolver.options();
    let list: Vec<_> = resolver.list().iter().map(models::state_json).collect();
    json::print(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "adapters": adapters,
        "cpu": { "isa": Isa::detect().name(), "isas": isas(), "cores": cores() },
        "device": report.map(|r| &r.device),
        "rung": report.map(|r| r.rung.name()),
        "attempts": report.map(json::attempts).unwrap_or_default(),
        "error": failure,
        "self_test": proofs,
        "cache": { "dir": o.cache_dir, "free_bytes": free_bytes(resolver, &o.cache_dir) },
        "hub_cache": { "dir": o.hub.cache_dir, "free_bytes": free_bytes(resolver, &o.hub.cache_dir) },
        "models": list,
    }))?;
    Ok(())
}

fn isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Free bytes where a folder is, or will be.
fn free_bytes(resolver: &Resolver, dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|d| d.exists())?;
    (resolver.options().free_space)(there).ok()
}
