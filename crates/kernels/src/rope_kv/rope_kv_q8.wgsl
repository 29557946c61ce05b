// Rotary embedding and write to caches in q8_0. q <- rot(q, pos); kc[seq, pos mod CAP] <- rot(k, pos), vc likewise.
// Operands: q f32 [T, NH*HD] in place, k and v f32 [T, NKV*HD], rows u32 [T, 2], rope f32 [P, R/2, 2], caches [NSEQ, CAP, NKV, HD/64*17].
// One workgroup moves one head of q, k or v: 64 elements are two blocks of 34 bytes (an f16 scale, 32 signed bytes), 17 words.
// Source: Su et al. 2021; GGML's q8_0.
struct Params { t: u32, nh: u32, nkv: u32, hd: u32, pairs: u32, cap: u32, pairing: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> kc: array<u32>;
@group(0) @binding(7) var<storage, read_write> vc: array<u32>;

var<workgroup> turned: array<f32, 512>;
var<workgroup> scales: array<f32, 16>;

// Byte i of the head's blocks.
fn byte_of(i: u32) -> u32 {
  let block = i / 34u;
  let at = i % 34u;
  let scale = scales[block];
  if at < 2u { return (pack2x16float(vec2<f32>(scale, 0.0)) >> (8u * at)) & 0xffu; }
  var one = 0.0;
  if scale > 0.0 { one = round(turned[block * 32u + at - 2u] / scale); }
  return bitcast<u32>(i32(clamp(one, -127.0, 127.0))) & 0xffu;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let heads = p.nh + 2u * p.nkv;
  let i = id.x + id.y * groups.x;
  let t = i / heads;
  if t >= p.t { return; }
  let head = i % heads;
  let row = rows[t];
  if p.pairs > 0u && row.y >= arrayLength(&rope) / p.pairs { return; }
  let words = p.hd / 64u * 17u;
  if row.x >= arrayLength(&kc) / (p.cap * p.nkv * words) { return; }
  for (var pair = lane; pair < p.hd / 2u; pair += 64u) {
    // The pair's two elements: rotated ones first, then the rest in neighbours.
    var a = 2u * pair;
    var b = a + 1u;
    if p.pairing == 0u && pair < p.pairs { a = pair; b = pair + p.pairs; }
    var turn = vec2<f32>(1.0, 0.0);
    if pair < p.pairs && head < p.nh + p.nkv { turn = rope[row.y * p.pairs + pair]; }
    var x: f32;
    var y: f32;
    if head < p.nh {
      let base = (t * p.nh + head) * p.hd;
      x = q[base + a];
      y = q[base + b];
      q[base + a] = x * turn.x - y * turn.y;
      q[base + b] = x * turn.y + y * turn.x;
    } else if head < p.nh + p.nkv {
      let base = (t * p.nkv + head - p.nh) * p.hd;
      x = k[base + a];
      y = k[base + b];
    } else {
      let base = (t * p.nkv + head - p.nh - p.nkv) * p.hd;
      x = v[base + a];
      y = v[base + b];
    }
    turned[a] = x * turn.x - y * turn.y;
    turned[b] = x * turn.y + y * turn.x;
  }
  if head < p.nh { return; }
  workgroupBarrier();
  if lane < p.hd / 32u {
    var most = 0.0;
    for (var e = 0u; e < 32u; e += 1u) { most = max(most, abs(turned[lane * 32u + e])); }
    scales[lane] = most / 127.0;
  }
  workgroupBarrier();
  let slot = (row.x * p.cap + row.y % p.cap) * p.nkv;
  for (var w = lane; w < words; w += 64u) {
    let bits = byte_of(4u * w) | (byte_of(4u * w + 1u) << 8u) | (byte_of(4u * w + 2u) << 16u) | (byte_of(4u * w + 3u) << 24u);
    if head < p.nh + p.nkv { kc[(slot + head - p.nh) * words + w] = bits; }
    else { vc[(slot + head - p.nh - p.nkv) * words + w] = bits; }
  }
}
