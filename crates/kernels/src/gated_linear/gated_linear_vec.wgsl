// Gated linear, few rows of x. y[t, n] = activate(sum_k x[t, k] w[n, k]) * sum_k x[t, k] w_up[n, k].
// Operands: x f32 [T, K], w and w_up packed [N, K], y f32 [T, N].
// One workgroup computes eight outputs; eight lanes share a row of both weights, each takes every eighth group of eight elements.
// Source: Shazeer 2020 (GLU variants).
struct Params { t: u32, n: u32, k: u32, act: u32, row_bytes: u32, row_bytes_up: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> w_up: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let per_t = (p.n + 7u) / 8u;
  let t = i / per_t;
  if t >= p.t { return; }
  let n = (i % per_t) * 8u + lane / 8u;
  var sum = vec2<f32>(0.0);
  if n < p.n {
    let count = p.k / 8u;
    let base = t * p.k / 4u;
    for (var g = lane % 8u; g < count; g += 8u) {
      let a = x[base + g * 2u];
      let b = x[base + g * 2u + 1u];
      let gate = weights8(n, g);
      let up = weights8_up(n, g);
      sum += vec2<f32>(dot(gate.lo, a) + dot(gate.hi, b), dot(up.lo, a) + dot(up.hi, b));
    }
  }
  partial[lane] = sum;
  workgroupBarrier();
  if lane % 8u == 0u && n < p.n {
    let a = partial[lane] + partial[lane + 1u] + (partial[lane + 2u] + partial[lane + 3u]);
    let b = partial[lane + 4u] + partial[lane + 5u] + (partial[lane + 6u] + partial[lane + 7u]);
    let both = a + b;
    y[t * p.n + n] = activate(p.act, both.x) * both.y;
  }
}
