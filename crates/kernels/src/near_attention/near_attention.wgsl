// Near attention. out = sum_j softmax(cap tanh((kscale q_t.k_(t-j) + q_t.r_j) / cap)) v_(t-j) over the distances 0 <= j < P, j <= t.
// Operands: q, k, v f32 [T, NH*HD], r f32 [P, NH*HD], out f32 [T, NH*HD].
// One workgroup computes one head of one token: first a score per invocation, then elements of the result.
// Source: Gemma4AudioAttention in transformers, after Dai et al. 2019.
struct Params { t: u32, nh: u32, hd: u32, p: u32, kscale: f32, cap: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> r: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

var<workgroup> scores: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  if i >= p.t * p.nh { return; }
  let t = i / p.nh;
  let h = i % p.nh;
  let row = p.nh * p.hd;
  let own = t * row + h * p.hd;
  let seen = min(p.p, t + 1u);
  if lane < seen {
    let key = (t - lane) * row + h * p.hd;
    let far = lane * row + h * p.hd;
    var near = 0.0;
    var distance = 0.0;
    for (var d = 0u; d < p.hd; d += 1u) {
      near += q[own + d] * k[key + d];
      distance += q[own + d] * r[far + d];
    }
    // Beyond 20 the hyperbolic tangent is one, and some drivers overflow on the way.
    let x = clamp((p.kscale * near + distance) / p.cap, -20.0, 20.0);
    scores[lane] = p.cap * tanh(x);
  }
  workgroupBarrier();
  var top = scores[0];
  for (var j = 1u; j < seen; j += 1u) { top = max(top, scores[j]); }
  var total = 0.0;
  for (var j = 0u; j < seen; j += 1u) { total += exp(scores[j] - top); }
  for (var d = lane; d < p.hd; d += 64u) {
    var sum = 0.0;
    for (var j = 0u; j < seen; j += 1u) {
      sum += exp(scores[j] - top) * v[(t - j) * row + h * p.hd + d];
    }
    out[own + d] = sum / total;
  }
}
