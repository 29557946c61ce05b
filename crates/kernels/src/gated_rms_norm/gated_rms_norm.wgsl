// RMSNorm, then a gate. y = x / sqrt(mean(x^2) + eps) * w * silu(gate).
// Operands: x f32 [R, D], gate f32 [R, D], w f32 [D], y f32 [R, D].
// One workgroup normalises one row.
// Source: Qwen3_5RMSNormGated of transformers.
struct Params { rows: u32, d: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = id.x + id.y * groups.x;
  if row >= p.rows { return; }
  let base = row * p.d;
  var sum = 0.0;
  for (var i = lane; i < p.d; i += 64u) { sum += x[base + i] * x[base + i]; }
  partial[lane] = sum;
  workgroupBarrier();
  for (var step = 32u; step > 0u; step >>= 1u) {
    if lane < step { partial[lane] += partial[lane + step]; }
    workgroupBarrier();
  }
  let scale = 1.0 / sqrt(partial[0] / f32(p.d) + p.eps);
  for (var i = lane; i < p.d; i += 64u) {
    let g = gate[base + i];
    let a = g / (1.0 + exp(-clamp(g, -80.0, 80.0)));
    y[base + i] = x[base + i] * scale * w[i] * a;
  }
}
