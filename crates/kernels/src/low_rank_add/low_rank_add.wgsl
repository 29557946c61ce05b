// Low-rank correction. y[t, n] += scale * sum_r h[t, r] b[r, n].
// Operands: h f32 [T, R], b f32 [R, N], y f32 [T, N] in place.
// One invocation corrects one element.
// Source: Hu et al. 2021 (LoRA).
struct Params { t: u32, r: u32, n: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> h: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.t * p.n { return; }
  let t = i / p.n;
  let n = i % p.n;
  var sum = 0.0;
  for (var r = 0u; r < p.r; r += 1u) { sum += h[t * p.r + r] * b[r * p.n + n]; }
  y[i] += p.scale * sum;
}
