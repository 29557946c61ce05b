// Rotary embedding in place. q <- rot(q, pos).
// Operands: q f32 [T, NH*HD] in place, rows u32 [T, 2], rope f32 [P, R/2, 2].
// One invocation turns one pair of elements of one head.
// Source: Su et al. 2021.
struct Params { t: u32, nh: u32, hd: u32, pairs: u32, positions: u32, pairing: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> rope: array<vec2<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  let head = i / p.pairs;
  let t = head / p.nh;
  if t >= p.t { return; }
  let pair = i % p.pairs;
  let pos = rows[t].y;
  if pos >= p.positions { return; }
  let a = head * p.hd + select(pair, 2u * pair, p.pairing == 1u);
  let b = select(a + p.pairs, a + 1u, p.pairing == 1u);
  let turn = rope[pos * p.pairs + pair];
  let x = q[a];
  let y = q[b];
  q[a] = x * turn.x - y * turn.y;
  q[b] = x * turn.y + y * turn.x;
}
