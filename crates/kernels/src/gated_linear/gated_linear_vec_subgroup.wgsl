// Gated linear, few rows of x. y[t, n] = activate(sum_k x[t, k] w[n, k]) * sum_k x[t, k] w_up[n, k].
// Operands: x f32 [T, K], w and w_up packed [N, K], y f32 [T, N].
// One workgroup computes OUTPUTS outputs for up to four rows of x (rows.wgsl); a subgroup, of whatever size, sums a row of both weights at a time, several the parts of one where there are more of them than rows.
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
        @builtin(num_subgroups) subgroups: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_size) size: u32, @builtin(subgroup_invocation_id) lane: u32,
        @builtin(local_invocation_index) index: u32) {
  let i = id.x + id.y * groups.x;
  let per_t = blocks(p.n);
  let t0 = i / per_t * 4u;
  if t0 >= p.t { return; }
  let count = p.k / 8u;
  let at = begins(t0);
  let n0 = i % per_t * OUTPUTS;
  // So many subgroups share a row.
  let share = max(subgroups / OUTPUTS, 1u);
  let jobs = OUTPUTS * share;
  let step = min(size, 64u) * share;
  for (var j = 0u; j < jobs; j += subgroups) {
    let job = j + subgroup;
    let n = n0 + job / share;
    var sum = vec4<f32>();
    var sum_up = vec4<f32>();
    if n < p.n {
      for (var g = job % share * size + lane; g < count; g += step) {
        sum += products(weights8(n, g), g, at);
        sum_up += products(weights8_up(n, g), g, at);
      }
    }
    sum = add_up(sum);
    sum_up = add_up(sum_up);
    if lane == 0u && job < jobs {
      partial[job] = sum;
      partial[64u + job] = sum_up;
    }
  }
  workgroupBarrier();
  if index < OUTPUTS && n0 + index < p.n {
    store(t0, n0 + index, total(index * share, share), total(64u + index * share, share));
  }
}
