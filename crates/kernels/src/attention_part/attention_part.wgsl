// Attention over a part of the keys. acc = sum_j exp(scale q.k_j - top) v_j, with top the largest score and total = sum_j exp(score - top).
// Operands: q f32 [T, NH*HD], kc and vc KV [NSEQ, CAP, NKV, heads], rows u32 [T, 2], parts f32 [T, NH, P, HD + 4].
// One workgroup serves up to four query heads over one head of keys, for one token and one part: see four_queries.wgsl, which is joined to this.
// Source: Dao et al. 2023 (Flash-Decoding), Milakov & Gimelshein 2018.
struct Params { t: u32, nh: u32, nkv: u32, hd: u32, cap: u32, window: u32, scale: f32, softcap: f32, parts: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kc: array<KV>;
@group(0) @binding(3) var<storage, read> vc: array<KV>;
@group(0) @binding(4) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  // The heads that share keys, four at a time.
  let sharing = p.nh / p.nkv;
  let fours = (sharing + 3u) / 4u;
  let slice = i % p.parts;
  let four = (i / p.parts) % fours;
  let kv_head = (i / p.parts / fours) % p.nkv;
  let t = i / p.parts / fours / p.nkv;
  if t >= p.t { return; }
  let n4 = p.hd / 4u;
  let stride = p.nkv * head_size(n4);
  // What is no sequence or position is taken for the last: no index may leave the caches.
  let row = min(rows[t], vec2<u32>(arrayLength(&kc) / (p.cap * stride) - 1u, 0x7ffffffeu));
  let base = row.x * p.cap * stride + kv_head * head_size(n4);
  // At most CAP keys are there: key j is in slot j mod CAP.
  let own = row.y + 1u;
  var held = p.cap;
  if p.window > 0u { held = min(held, p.window); }
  let all = min(own, held);
  let whole = own - all;
  // Every part has as many keys, in whole rounds; the last ones may have none.
  let share = ((all + p.parts - 1u) / p.parts + 127u) / 128u * 128u;
  let begin = whole + min(slice * share, all);
  let end = whole + min(slice * share + share, all);
  let first = begin % p.cap;
  // Heads beyond the last repeat it and are not stored.
  let head0 = four * 4u;
  for (var c = lane; c < 4u * n4; c += 128u) {
    let head = kv_head * sharing + min(head0 + c / n4, sharing - 1u);
    qs[c] = q[(t * p.nh + head) * n4 + c % n4] * p.scale;
  }
  workgroupBarrier();

  let teams = 128u / n4;
  let team = lane / n4;
  let dim = lane % n4;
  var sums = nothing_yet();
  for (var j0 = begin; j0 < end; j0 += 128u) {
    let j = j0 + lane;
    var s = vec4<f32>(LOWEST);
    if j < end {
      s = scores_of(base + slot_of(first, j - begin) * stride, n4);
    }
    weigh(&sums, lane, s, vec4<bool>(j < end));
    let count = min(128u, end - j0);
    if team < teams {
      for (var c = team; c < count; c += teams) {
        let e = weight[c];
        let v = value(base + slot_of(first, j0 + c - begin) * stride, dim);
        take(&sums, e, v);
      }
    }
    workgroupBarrier();
  }
  add_teams(&sums, lane, n4);
  if lane >= n4 { return; }
  let left = sharing - head0;
  // A head's parts stand next to each other: HD sums, the largest score, the total, two that nobody reads.
  let at = ((t * p.nh + kv_head * sharing + head0) * p.parts + slice) * (n4 + 1u);
  let next = p.parts * (n4 + 1u);
  store_part(at, lane, n4, sums.a0, sums.top.x, sums.total.x);
  if left > 1u { store_part(at + next, lane, n4, sums.a1, sums.top.y, sums.total.y); }
  if left > 2u { store_part(at + 2u * next, lane, n4, sums.a2, sums.top.z, sums.total.z); }
  if left > 3u { store_part(at + 3u * next, lane, n4, sums.a3, sums.top.w, sums.total.w); }
}

fn store_part(at: u32, lane: u32, n4: u32, acc: vec4<f32>, top: f32, total: f32) {
  parts[at + lane] = acc;
  if lane == 0u { parts[at + n4] = vec4<f32>(top, total, 0.0, 0.0); }
}
