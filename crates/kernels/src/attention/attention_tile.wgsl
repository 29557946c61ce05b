// Attention, prefill form. out = sum_j softmax(scale q.k_j) v_j over the visible keys.
// Operands: q f32 [T, NH*HD], kc and vc KV [NSEQ, CAP, NKV, HD/4], rows u32 [T, 2], out f32 [T, NH*HD].
// One workgroup serves four tokens of one head; the lanes of a vec4 are the tokens. An invocation scores one key of each
// 128 for all four, then sums four elements of v for each.
// Source: Dao et al. 2022 (online softmax).
struct Params { t: u32, nh: u32, nkv: u32, hd: u32, cap: u32, window: u32, scale: f32, softcap: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kc: array<KV>;
@group(0) @binding(3) var<storage, read> vc: array<KV>;
@group(0) @binding(4) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

const LOWEST = -3.0e38;
// Four queries; later, in turn, each query's partial sums.
var<workgroup> qs: array<vec4<f32>, 512>;
var<workgroup> weight: array<vec4<f32>, 128>;
var<workgroup> fold: array<vec4<f32>, 128>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let t0 = (i / p.nh) * 4u;
  if t0 >= p.t { return; }
  let h = i % p.nh;
  let n4 = p.hd / 4u;
  let stride = p.nkv * n4;
  // Tokens beyond the last repeat it and are not stored.
  let tokens = min(vec4<u32>(t0, t0 + 1u, t0 + 2u, t0 + 3u), vec4<u32>(p.t - 1u));
  let r0 = rows[tokens.x]; let r1 = rows[tokens.y]; let r2 = rows[tokens.z]; let r3 = rows[tokens.w];
  let seqs = vec4<u32>(r0.x, r1.x, r2.x, r3.x);
  // At most CAP keys are there: key j is in slot j mod CAP.
  let ends = vec4<u32>(r0.y, r1.y, r2.y, r3.y) + 1u;
  var held = p.cap;
  if p.window > 0u { held = min(held, p.window); }
  let begins = ends - min(ends, vec4<u32>(held));
  for (var c = lane; c < 4u * n4; c += 128u) {
    let token = tokens[c / n4];
    qs[c] = q[(token * p.nh + h) * n4 + c % n4] * p.scale;
  }
  workgroupBarrier();

  let parts = 128u / n4;
  let part = lane / n4;
  let dim = lane % n4;
  var top = vec4<f32>(LOWEST);
  var total = vec4<f32>();
  var a0 = vec4<f32>(); var a1 = vec4<f32>(); var a2 = vec4<f32>(); var a3 = vec4<f32>();
  // One round per sequence met: the tokens of a sequence stand next to each other.
  for (var round = 0u; round < 4u; round += 1u) {
    let seq = seqs[round];
    if round > 0u && seqs[round - 1u] == seq { continue; }
    let mine = seqs == vec4<u32>(seq);
    let lo = select(vec4<u32>(0xffffffffu), begins, mine);
    let hi = select(vec4<u32>(0u), ends, mine);
    let begin = min(min(lo.x, lo.y), min(lo.z, lo.w));
    let end = min(max(max(hi.x, hi.y), max(hi.z, hi.w)), begin + p.cap);
    let first = begin % p.cap;
    let base = seq * p.cap * stride + (h / (p.nh / p.nkv)) * n4;
    for (var j0 = begin; j0 < end; j0 += 128u) {
      let j = j0 + lane;
      let seen = mine & (vec4<u32>(j) < ends) & (vec4<u32>(j) >= begins);
      var s = vec4<f32>(LOWEST);
      if any(seen) {
        var d = vec4<f32>();
        var slot = first + (j - begin);
        if slot >= p.cap { slot -= p.cap; }
        let at = base + slot * stride;
        for (var c = 0u; c < n4; c += 1u) {
          let k = vec4<f32>(kc[at + c]);
          d += vec4<f32>(dot(qs[c], k), dot(qs[c + n4], k), dot(qs[c + 2u * n4], k), dot(qs[c + 3u * n4], k));
        }
        if p.softcap > 0.0 {
          d = p.softcap * tanh(clamp(d / p.softcap, vec4<f32>(-15.0), vec4<f32>(15.0)));
        }
        s = select(s, d, seen);
      }
      fold[lane] = s;
      workgroupBarrier();
      for (var step = 64u; step > 0u; step >>= 1u) {
        if lane < step { fold[lane] = max(fold[lane], fold[lane + step]); }
        workgroupBarrier();
      }
      let new_top = max(top, fold[0]);
      weight[lane] = select(vec4<f32>(), exp(s - new_top), seen);
      let shrink = exp(top - new_top);
      top = new_top;
      workgroupBarrier();
      total *= shrink;
      a0 *= shrink.x; a1 *= shrink.y; a2 *= shrink.z; a3 *= shrink.w;
      let count = min(128u, end - j0);
      if part < parts {
        for (var c = part; c < count; c += parts) {
          let e = weight[c];
          var slot = first + (j0 + c - begin);
          if slot >= p.cap { slot -= p.cap; }
          let v = vec4<f32>(vc[base + slot * stride + dim]);
          total += e;
          a0 += e.x * v; a1 += e.y * v; a2 += e.z * v; a3 += e.w * v;
        }
      }
      workgroupBarrier();
    }
  }
  // Add the teams' sums, one token at a time through the same memory.
  weight[lane] = total;
  fold[lane] = a0; qs[lane] = a1; qs[lane + 128u] = a2; qs[lane + 256u] = a3;
  workgroupBarrier();
  if lane < n4 {
    for (var c = 1u; c < parts; c += 1u) {
      let at = lane + c * n4;
      total += weight[at];
      a0 += fold[at]; a1 += qs[at]; a2 += qs[at + 128u]; a3 += qs[at + 256u];
    }
    store(t0, h, n4, lane, a0 / total.x);
    store(t0 + 1u, h, n4, lane, a1 / total.y);
    store(t0 + 2u, h, n4, lane, a2 / total.z);
    store(t0 + 3u, h, n4, lane, a3 / total.w);
  }
}

fn store(t: u32, h: u32, n4: u32, dim: u32, v: vec4<f32>) {
  if t < p.t { out[(t * p.nh + h) * n4 + dim] = v; }
}
