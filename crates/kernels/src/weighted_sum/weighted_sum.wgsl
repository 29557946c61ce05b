// Weighted sums. y[t, :] = sum_j w[t, j] x[t K + j, :].
// Operands: x f32 [T*K, D], w f32 [T, K], y f32 [T, D].
// One invocation computes one element.
// Source: Shazeer et al. 2017.
struct Params { t: u32, k: u32, d: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.t * p.d { return; }
  let t = i / p.d;
  var sum = 0.0;
  for (var j = 0u; j < p.k; j++) {
    sum += w[t * p.k + j] * x[(t * p.k + j) * p.d + i % p.d];
  }
  y[i] = sum;
}
