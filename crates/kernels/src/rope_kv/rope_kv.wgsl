// Rotary embedding and cache write. q <- rot(q, pos); kc[seq, pos mod CAP] <- rot(k, pos), vc likewise.
// Operands: q f32 [T, NH*HD] in place, k and v f32 [T, NKV*HD], rows u32 [T, 2], rope f32 [P, R/2, 2], caches KV.
// One invocation moves one pair of elements of one head of q, k or v.
// Source: Su et al. 2021.
struct Params { t: u32, nh: u32, nkv: u32, hd: u32, pairs: u32, cap: u32, pairing: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> kc: array<KV>;
@group(0) @binding(7) var<storage, read_write> vc: array<KV>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  let half = p.hd / 2u;
  let heads = p.nh + 2u * p.nkv;
  let t = i / (half * heads);
  if t >= p.t { return; }
  let head = (i / half) % heads;
  let pair = i % half;
  let row = rows[t];
  if p.pairs > 0u && row.y >= arrayLength(&rope) / p.pairs { return; }
  if row.x >= arrayLength(&kc) / (p.cap * p.nkv * p.hd) { return; }
  // The pair's two elements: rotated ones first, then the rest in neighbours.
  var a = 2u * pair;
  var b = a + 1u;
  if p.pairing == 0u && pair < p.pairs { a = pair; b = pair + p.pairs; }
  var turn = vec2<f32>(1.0, 0.0);
  if pair < p.pairs { turn = rope[row.y * p.pairs + pair]; }
  if head < p.nh {
    let base = (t * p.nh + head) * p.hd;
    let x = q[base + a];
    let y = q[base + b];
    q[base + a] = x * turn.x - y * turn.y;
    q[base + b] = x * turn.y + y * turn.x;
  } else if head < p.nh + p.nkv {
    let h = head - p.nh;
    let from_ = (t * p.nkv + h) * p.hd;
    let to = ((row.x * p.cap + row.y % p.cap) * p.nkv + h) * p.hd;
    let x = k[from_ + a];
    let y = k[from_ + b];
    kc[to + a] = KV(x * turn.x - y * turn.y);
    kc[to + b] = KV(x * turn.y + y * turn.x);
  } else {
    let h = head - p.nh - p.nkv;
    let from_ = (t * p.nkv + h) * p.hd;
    let to = ((row.x * p.cap + row.y % p.cap) * p.nkv + h) * p.hd;
    vc[to + a] = KV(v[from_ + a]);
    vc[to + b] = KV(v[from_ + b]);
  }
}
