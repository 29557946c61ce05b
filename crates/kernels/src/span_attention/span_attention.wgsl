// Attention over spans. out = sum_j softmax(scale q.k_j) v_j over the keys begin <= j < end of the token's span.
// Operands: q f32 [T, NH*HD of each row], k and v f32 [S, NKV*HD of each row], spans u32 [T, 2], out f32 [T, NH*HD].
// One workgroup serves four tokens of one head: see four_queries.wgsl, which is joined to this.
// Source: Dao et al. 2022 (online softmax).
struct Params {
  t: u32, nh: u32, nkv: u32, hd: u32, s: u32,
  qstride: u32, kstride: u32, vstride: u32, qfirst: u32, kfirst: u32, vfirst: u32, scale: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let t0 = (i / p.nh) * 4u;
  if t0 >= p.t { return; }
  let h = i % p.nh;
  let n4 = p.hd / 4u;
  let at_k = p.kfirst / 4u + (h / (p.nh / p.nkv)) * n4;
  let at_v = p.vfirst / 4u + (h / (p.nh / p.nkv)) * n4;
  let kstride = p.kstride / 4u;
  let vstride = p.vstride / 4u;
  // Tokens beyond the last repeat it and are not stored.
  let tokens = min(vec4<u32>(t0, t0 + 1u, t0 + 2u, t0 + 3u), vec4<u32>(p.t - 1u));
  let r0 = spans[tokens.x]; let r1 = spans[tokens.y]; let r2 = spans[tokens.z]; let r3 = spans[tokens.w];
  let begins = vec4<u32>(r0.x, r1.x, r2.x, r3.x);
  let ends = min(vec4<u32>(r0.y, r1.y, r2.y, r3.y), vec4<u32>(p.s));
  for (var c = lane; c < 4u * n4; c += 128u) {
    let token = tokens[c / n4];
    qs[c] = q[token * (p.qstride / 4u) + p.qfirst / 4u + h * n4 + c % n4] * p.scale;
  }
  workgroupBarrier();

  let parts = 128u / n4;
  let part = lane / n4;
  let dim = lane % n4;
  var sums = nothing_yet();
  // All keys from the first that a token sees to the last: tokens of one sequence, and of two that are neighbours, see
  // neighbouring keys.
  let begin = min(min(begins.x, begins.y), min(begins.z, begins.w));
  let end = max(max(ends.x, ends.y), max(ends.z, ends.w));
  for (var j0 = begin; j0 < end; j0 += 128u) {
    let j = j0 + lane;
    let seen = (vec4<u32>(j) < ends) & (vec4<u32>(j) >= begins);
    var s = vec4<f32>(LOWEST);
    if any(seen) {
      var d = vec4<f32>();
      let at = at_k + j * kstride;
      for (var c = 0u; c < n4; c += 1u) {
        let key = k[at + c];
        d += products(c, n4, key);
      }
      s = select(s, d, seen);
    }
    weigh(&sums, lane, s, seen);
    let count = min(128u, end - j0);
    if part < parts {
      for (var c = part; c < count; c += parts) {
        let e = weight[c];
        // A key that nobody sees may hold anything, NaN too.
        if any(e != vec4<f32>()) {
          let value = v[at_v + (j0 + c) * vstride + dim];
          take(&sums, e, value);
        }
      }
    }
    workgroupBarrier();
  }
  finish(&sums, lane, n4, t0, h);
}
