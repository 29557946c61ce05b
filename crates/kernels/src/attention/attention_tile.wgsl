// Attention, prefill form. out = sum_j softmax(scale q.k_j) v_j over the visible keys.
// Operands: q f32 [T, NH*HD], kc and vc KV [NSEQ, CAP, NKV, heads], rows u32 [T, 2], ends u32 [T] if mutual, out f32 [T, NH*HD].
// One workgroup serves four tokens of one head: see four_queries.wgsl, which is joined to this.
// Source: Dao et al. 2022 (online softmax).
struct Params { t: u32, nh: u32, nkv: u32, hd: u32, cap: u32, window: u32, scale: f32, softcap: f32, mutual: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kc: array<KV>;
@group(0) @binding(3) var<storage, read> vc: array<KV>;
@group(0) @binding(4) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> ends: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let t0 = (i / p.nh) * 4u;
  if t0 >= p.t { return; }
  let h = i % p.nh;
  let n4 = p.hd / 4u;
  let stride = p.nkv * head_size(n4);
  // Tokens beyond the last repeat it and are not stored.
  let tokens = min(vec4<u32>(t0, t0 + 1u, t0 + 2u, t0 + 3u), vec4<u32>(p.t - 1u));
  // What is no sequence or position is taken for the last: no index may leave the caches.
  let last = vec2<u32>(arrayLength(&kc) / (p.cap * stride) - 1u, 0x7ffffffeu);
  let r0 = min(rows[tokens.x], last); let r1 = min(rows[tokens.y], last);
  let r2 = min(rows[tokens.z], last); let r3 = min(rows[tokens.w], last);
  let seqs = vec4<u32>(r0.x, r1.x, r2.x, r3.x);
  // At most CAP keys are there: key j is in slot j mod CAP.
  let own = vec4<u32>(r0.y, r1.y, r2.y, r3.y) + 1u;
  var held = p.cap;
  if p.window > 0u { held = min(held, p.window); }
  let begins = own - min(own, vec4<u32>(held));
  var upto = own;
  if p.mutual > 0u {
    upto = max(upto, vec4<u32>(ends[tokens.x], ends[tokens.y], ends[tokens.z], ends[tokens.w]));
  }
  for (var c = lane; c < 4u * n4; c += 128u) {
    let token = tokens[c / n4];
    qs[c] = q[(token * p.nh + h) * n4 + c % n4] * p.scale;
  }
  workgroupBarrier();

  let parts = 128u / n4;
  let part = lane / n4;
  let dim = lane % n4;
  var sums = nothing_yet();
  // One round per sequence met: the tokens of a sequence stand next to each other.
  for (var round = 0u; round < 4u; round += 1u) {
    let seq = seqs[round];
    if round > 0u && seqs[round - 1u] == seq { continue; }
    let mine = seqs == vec4<u32>(seq);
    let lo = select(vec4<u32>(0xffffffffu), begins, mine);
    let hi = select(vec4<u32>(0u), upto, mine);
    let begin = min(min(lo.x, lo.y), min(lo.z, lo.w));
    let end = min(max(max(hi.x, hi.y), max(hi.z, hi.w)), begin + p.cap);
    let first = begin % p.cap;
    let base = seq * p.cap * stride + (h / (p.nh / p.nkv)) * head_size(n4);
    for (var j0 = begin; j0 < end; j0 += 128u) {
      let j = j0 + lane;
      let seen = mine & (vec4<u32>(j) < min(upto, vec4<u32>(end))) & (vec4<u32>(j) >= begins);
      var s = vec4<f32>(LOWEST);
      if any(seen) {
        let d = scores_of(base + slot_of(first, j - begin) * stride, n4);
        s = select(s, d, seen);
      }
      weigh(&sums, lane, s, seen);
      let count = min(128u, end - j0);
      if part < parts {
        for (var c = part; c < count; c += parts) {
          let e = weight[c];
          let v = value(base + slot_of(first, j0 + c - begin) * stride, dim);
          take(&sums, e, v);
        }
      }
      workgroupBarrier();
    }
  }
  finish(&sums, lane, n4, t0, h);
}
