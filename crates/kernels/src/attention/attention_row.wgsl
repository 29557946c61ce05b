// Attention, decode form. out = sum_j softmax(scale q.k_j) v_j over the visible keys.
// Operands: q f32 [T, NH*HD], kc and vc KV [NSEQ, CAP, NKV, heads], rows u32 [T, 2], ends u32 [T] if mutual, out f32 [T, NH*HD].
// One workgroup serves one token and head: an invocation scores one key of each 128, then sums four elements of v.
// Source: Dao et al. 2022 (online softmax).
struct Params { t: u32, nh: u32, nkv: u32, hd: u32, cap: u32, window: u32, scale: f32, softcap: f32, mutual: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kc: array<KV>;
@group(0) @binding(3) var<storage, read> vc: array<KV>;
@group(0) @binding(4) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> ends: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

const LOWEST = -3.0e38;
var<workgroup> qs: array<vec4<f32>, 128>;
var<workgroup> weight: array<f32, 128>;
var<workgroup> fold: array<f32, 128>;
var<workgroup> sums: array<vec4<f32>, 128>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let t = i / p.nh;
  if t >= p.t { return; }
  let h = i % p.nh;
  var row = rows[t];
  let n4 = p.hd / 4u;
  let stride = p.nkv * head_size(n4);
  // What is no sequence or position is taken for the last: no index may leave the caches.
  row = min(row, vec2<u32>(arrayLength(&kc) / (p.cap * stride) - 1u, 0x7ffffffeu));
  let base = row.x * p.cap * stride + (h / (p.nh / p.nkv)) * head_size(n4);
  // At most CAP keys are there: key j is in slot j mod CAP.
  let own = row.y + 1u;
  var held = p.cap;
  if p.window > 0u { held = min(held, p.window); }
  let begin = own - min(own, held);
  var end = own;
  if p.mutual > 0u { end = min(max(own, ends[t]), begin + p.cap); }
  let first = begin % p.cap;
  if lane < n4 { qs[lane] = q[i * n4 + lane] * p.scale; }
  workgroupBarrier();

  // The workgroup splits in `parts` teams of n4 lanes; a team sums every parts-th key.
  let parts = 128u / n4;
  let part = lane / n4;
  let dim = lane % n4;
  var top = LOWEST;
  var total = 0.0;
  var acc = vec4<f32>();
  for (var j0 = begin; j0 < end; j0 += 128u) {
    let j = j0 + lane;
    var s = LOWEST;
    if j < end {
      var d = 0.0;
      var slot = first + (j - begin);
      if slot >= p.cap { slot -= p.cap; }
      let at = base + slot * stride;
      for (var c = 0u; c < n4; c += 1u) { d += dot(qs[c], key(at, c)); }
      if p.softcap > 0.0 { d = p.softcap * tanh(clamp(d / p.softcap, -15.0, 15.0)); }
      s = d;
    }
    fold[lane] = s;
    workgroupBarrier();
    for (var step = 64u; step > 0u; step >>= 1u) {
      if lane < step { fold[lane] = max(fold[lane], fold[lane + step]); }
      workgroupBarrier();
    }
    let new_top = max(top, fold[0]);
    var e = 0.0;
    if j < end { e = exp(s - new_top); }
    weight[lane] = e;
    let shrink = exp(top - new_top);
    top = new_top;
    workgroupBarrier();
    total *= shrink;
    acc *= shrink;
    let count = min(128u, end - j0);
    if part < parts {
      for (var c = part; c < count; c += parts) {
        let wgt = weight[c];
        total += wgt;
        var slot = first + (j0 + c - begin);
        if slot >= p.cap { slot -= p.cap; }
        acc += wgt * value(base + slot * stride, dim);
      }
    }
    workgroupBarrier();
  }
  sums[lane] = acc;
  weight[lane] = total;
  workgroupBarrier();
  if lane < n4 {
    for (var c = 1u; c < parts; c += 1u) {
      acc += sums[lane + c * n4];
      total += weight[lane + c * n4];
    }
    out[i * n4 + lane] = acc / total;
  }
}
