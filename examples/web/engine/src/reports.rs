//! What is told about device and memory, as JSON.

use crate::threads::sharing;
use firelight_kernels::Isa;
use firelight_runtime::{Device, Report};
use serde_json::{Value, json};

/// SIMD of this binary.
fn simd() -> &'static str {
    if cfg!(target_feature = "relaxed-simd") {
        "relaxed"
    } else if cfg!(target_feature = "simd128") {
        "simd128"
    } else {
        "none"
    }
}

/// [`Report`] in the words of `firelight.d.ts`.
pub(crate) fn device(report: &Report, device: &Device, self_test_ms: f64) -> Value {
    let attempts: Vec<Value> = report
        .attempts
        .iter()
        .map(|a| json!({"what": a.what, "rung": a.rung.name(), "refused": a.refused}))
        .collect();
    let adapter = report.adapters.first().map(|a| {
        json!({
            "name": a.name, "software": a.software, "f16": a.f16, "subgroups": a.subgroups,
            "subgroupSize": [a.subgroup_size.0, a.subgroup_size.1],
            "maxBinding": a.max_binding, "maxBuffer": a.max_buffer,
        })
    });
    let self_test = report.self_test.as_ref().map(|t| {
        let mut kernels: Vec<&str> = t.outcomes.iter().map(|o| o.kernel).collect();
        kernels.dedup();
        json!({"kernels": kernels.len(), "cases": t.outcomes.len(), "ms": self_test_ms})
    });
    json!({
        "device": report.device,
        "rung": report.rung.name(),
        "gpu": device.is_gpu(),
        "attempts": attempts,
        "adapter": adapter,
        "selfTest": self_test,
        "parts": if cfg!(feature = "everything") { "everything" } else { "text" },
        "simd": simd(),
        "isa": Isa::detect().name(),
        "sharing": sharing(device),
        "features": {
            "chat": true, "images": cfg!(feature = "vision"), "audio": false, "transcribe": cfg!(feature = "audio"),
            "embed": cfg!(feature = "embed"), "schema": cfg!(feature = "grammar"),
        },
    })
}

/// Device memory by holder, bytes.
pub(crate) fn memory(device: &Device) -> Value {
    let report = device.memory();
    let held: serde_json::Map<String, Value> = report
        .held
        .iter()
        .map(|(holder, bytes)| (holder.name().to_owned(), json!(bytes)))
        .collect();
    json!({
        "device": held,
        "deviceTotal": report.total_bytes(),
        "devicePeak": report.peak_bytes,
    })
}
