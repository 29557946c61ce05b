// Gated linear, few rows of x. y[t, n] = activate(sum_k x[t, k] w[n, k]) * sum_k x[t, k] w_up[n, k].
// Operands: x f32 [T, K], w and w_up packed [N, K], y f32 [T, N].
// One workgroup computes OUTPUTS outputs for up to four rows of x (rows.wgsl); LANES lanes share a row of both weights, each takes every LANES-th group of eight elements.
// Source: Shazeer 2020 (GLU variants).
struct Params { t: u32, n: u32, k: u32, act: u32, row_bytes: u32, row_bytes_up: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> w_up: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Of w, then of w_up.
var<workgroup> partial: array<vec4<f32>, 128>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let per_t = blocks(p.n);
  let t0 = i / per_t * 4u;
  if t0 >= p.t { return; }
  let n0 = i % per_t * OUTPUTS;
  let n = n0 + lane / LANES;
  var sum = vec4<f32>();
  var sum_up = vec4<f32>();
  if n < p.n {
    let count = p.k / 8u;
    let at = begins(t0);
    for (var g = lane % LANES; g < count; g += LANES) {
      sum += products(weights8(n, g), g, at);
      sum_up += products(weights8_up(n, g), g, at);
    }
  }
  partial[lane] = sum;
  partial[64u + lane] = sum_up;
  gather(lane);
  gather(64u + lane);
  workgroupBarrier();
  if lane < OUTPUTS && n0 + lane < p.n {
    store(t0, n0 + lane, total(lane * LANES), total(64u + lane * LANES));
  }
}
