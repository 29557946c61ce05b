// Gated linear, few rows of x. y[t, n] = activate(sum_k x[t, k] w[n, k]) * sum_k x[t, k] w_up[n, k].
// Operands: x f32 [T, K], w and w_up packed [N, K], y f32 [T, N].
// One workgroup computes eight outputs for up to four rows of x (rows.wgsl); one subgroup, of whatever size, sums a row of both weights at a time.
// Source: Shazeer 2020 (GLU variants).
struct Params { t: u32, n: u32, k: u32, act: u32, row_bytes: u32, row_bytes_up: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> w_up: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(num_subgroups) subgroups: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_size) size: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let i = id.x + id.y * groups.x;
  let per_t = (p.n + 7u) / 8u;
  let t0 = i / per_t * 4u;
  if t0 >= p.t { return; }
  let count = p.k / 8u;
  let at = begins(t0);
  for (var r = 0u; r < 8u; r += subgroups) {
    let row = r + subgroup;
    let n = (i % per_t) * 8u + row;
    let live = row < 8u && n < p.n;
    var sum = vec4<f32>();
    var sum_up = vec4<f32>();
    if live {
      for (var g = lane; g < count; g += size) {
        sum += products(weights8(n, g), g, at);
        sum_up += products(weights8_up(n, g), g, at);
      }
    }
    let gate = add_up(sum);
    let up = add_up(sum_up);
    if live && lane == 0u { store(t0, n, gate, up); }
  }
}
