//! `firelight doctor`: which devices there are, which one runs and why, proof that it computes right, cache and disk.
//!
//! [`text`] writes for people what is found here.

mod text;

use super::models;
use crate::args::EngineArgs;
use crate::{FAILED, OK, interrupt, json, load, ui};
use anyhow::Result;
use firelight_kernels::harness::SelfTest;
use firelight_kernels::{AdapterReport, Isa, adapters};
use firelight_runtime::source::Resolver;
use firelight_runtime::tuning::TuningUse;
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
    args.engine.check()?;
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
        let text = text::shown(
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
    // The other rungs are not those of the kind of device asked for.
    let device = firelight_runtime::DeviceChoice::Auto;
    let adapter = args.adapter.filter(|_| rung.is_gpu());
    let options = EngineOptions {
        device,
        adapter,
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
        "tuning": report.map(tuning),
        "self_test": proofs,
        "cache": { "dir": o.cache_dir, "free_bytes": free_bytes(resolver, &o.cache_dir) },
        "hub_cache": { "dir": o.hub.cache_dir, "free_bytes": free_bytes(resolver, &o.hub.cache_dir) },
        "models": list,
    }))?;
    Ok(())
}

fn tuning(report: &Report) -> serde_json::Value {
    match &report.tuning {
        TuningUse::None => json!({ "state": "none" }),
        TuningUse::Used { file, chosen } => {
            json!({ "state": "used", "file": file, "chosen": chosen })
        }
        TuningUse::Ignored { file, why } => {
            json!({ "state": "ignored", "file": file, "why": why })
        }
    }
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
