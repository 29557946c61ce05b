// Depthwise convolution. y[t, c] = sum_i w[c, i] x[t + i - (K - 1), c], 0 before the beginning.
// Operands: x f32 [T, C], w f32 [C, K], y f32 [T, C].
// One invocation computes one element.
// Source: torch.nn.functional.conv1d with groups = C, padded on the left.
struct Params { t: u32, c: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let at = (id.x + id.y * groups.x) * 64u + lane;
  if at >= p.t * p.c { return; }
  let c = at % p.c;
  let t = at / p.c;
  var sum = 0.0;
  for (var i = 0u; i < p.k; i += 1u) {
    if t + i + 1u >= p.k {
      sum += w[c * p.k + i] * x[(t + i + 1u - p.k) * p.c + c];
    }
  }
  y[at] = sum;
}
