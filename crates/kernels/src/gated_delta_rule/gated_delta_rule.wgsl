// Gated delta rule. S <- alpha S; S <- S + k (beta (v - S^T k))^T; y = S^T q, with normalised q and k.
// Operands: qkv f32 [T, 2 NK*HK + NV*HV], b and a f32 [T, NV], decay f32 [2, NV], rows u32 [T, 2], state f32 [NSEQ, NV, HK, HV], y f32 [T, NV*HV].
// One workgroup walks eight columns of one head's state through a sequence; eight lanes share a column, each has PER_LANE of its elements.
// Source: Yang et al. 2024; torch_recurrent_gated_delta_rule of transformers.
struct Params { t: u32, nk: u32, nv: u32, hk: u32, hv: u32, nseq: u32, order: u32, scale: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> a: array<f32>;
@group(0) @binding(4) var<storage, read> decay: array<f32>;
@group(0) @binding(5) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

override PER_LANE: u32 = 32u;
const EPS = 1e-6;
// Two of each, used in turns: one barrier a token is enough.
var<workgroup> sums: array<vec4<f32>, 128>;
var<workgroup> squares: array<f32, 128>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let blocks = (p.hv + 7u) / 8u;
  let i = id.x + id.y * groups.x;
  let s = i / (blocks * p.nv);
  if s >= p.nseq { return; }
  let h = (i / blocks) % p.nv;
  let column = (i % blocks) * 8u + lane % 8u;
  let part = lane / 8u;
  let inside = column < p.hv;
  var key_head = h / (p.nv / p.nk);
  if p.order == 1u { key_head = h % p.nk; }
  let width = 2u * p.nk * p.hk + p.nv * p.hv;
  let base = (s * p.nv + h) * p.hk * p.hv + column;

  var mem: array<f32, 32>;
  var begun = false;
  var turn = 0u;
  for (var t = 0u; t < p.t; t += 1u) {
    let row = rows[t];
    if row.x == s {
      if !begun {
        begun = true;
        for (var j = 0u; j < PER_LANE; j += 1u) {
          let k = part + 8u * j;
          mem[j] = 0.0;
          if row.y > 0u && inside && k < p.hk { mem[j] = state[base + k * p.hv]; }
        }
      }
      let q_at = t * width + key_head * p.hk;
      let k_at = q_at + p.nk * p.hk;
      // S^T k, S^T q, k.q, k.k and q.q of the plain q and k.
      var sum = vec4<f32>();
      var square = 0.0;
      for (var j = 0u; j < PER_LANE; j += 1u) {
        let k = part + 8u * j;
        if k < p.hk {
          let qx = qkv[q_at + k];
          let kx = qkv[k_at + k];
          sum += kx * vec4<f32>(mem[j], 0.0, qx, kx) + vec4<f32>(0.0, qx * mem[j], 0.0, 0.0);
          square += qx * qx;
        }
      }
      sums[turn + lane] = sum;
      squares[turn + lane] = square;
      workgroupBarrier();
      sum = vec4<f32>();
      square = 0.0;
      for (var c = 0u; c < 8u; c += 1u) {
        sum += sums[turn + lane % 8u + c * 8u];
        square += squares[turn + lane % 8u + c * 8u];
      }
      turn = 64u - turn;
      let k_factor = inverseSqrt(sum.w + EPS);
      let q_factor = inverseSqrt(square + EPS) * p.scale;
      let beta = 1.0 / (1.0 + exp(-clamp(b[t * p.nv + h], -80.0, 80.0)));
      let step = a[t * p.nv + h] + decay[p.nv + h];
      var soft = step;
      if step < 20.0 { soft = log(1.0 + exp(max(step, -80.0))); }
      // log(1 + e) loses e below 1e-7; there it is e.
      if step < -15.0 { soft = exp(max(step, -80.0)); }
      let alpha = exp(max(decay[h] * soft, -80.0));
      var v = 0.0;
      if inside { v = qkv[t * width + 2u * p.nk * p.hk + h * p.hv + column]; }
      let delta = beta * (v - alpha * k_factor * sum.x);
      for (var j = 0u; j < PER_LANE; j += 1u) {
        let k = part + 8u * j;
        if k < p.hk { mem[j] = alpha * mem[j] + k_factor * qkv[k_at + k] * delta; }
      }
      if inside && part == 0u {
        y[t * p.nv * p.hv + h * p.hv + column] = q_factor * (alpha * sum.y + k_factor * sum.z * delta);
      }
    }
  }
  if begun && inside {
    for (var j = 0u; j < PER_LANE; j += 1u) {
      let k = part + 8u * j;
      if k < p.hk { state[base + k * p.hv] = mem[j]; }
    }
  }
}
