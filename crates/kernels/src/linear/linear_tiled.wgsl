// Linear, many rows of x. y[t, col0 + n] = sum_k x[t, k] w[n, k].
// Operands: x f32 [T, K], w packed [N, K], y f32 [T, LDY].
// One workgroup computes a TILE x TILE tile of y (a const of the part after this), each invocation 4 x 4 of it, from tiles of 32 columns in workgroup memory.
// Source: torch.nn.functional.linear; the classic register-tiled product.
struct Params { t: u32, n: u32, k: u32, ldy: u32, col0: u32, row_bytes: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Transposed: element (k, row) is at k * TILE + row.
var<workgroup> xs: array<f32, TILE * 32u>;
var<workgroup> ws: array<f32, TILE * 32u>;

@compute @workgroup_size(TILE * TILE / 16u)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tile = id.x + id.y * groups.x;
  let tiles_n = (p.n + TILE - 1u) / TILE;
  let t0 = (tile / tiles_n) * TILE;
  if t0 >= p.t { return; }
  let n0 = (tile % tiles_n) * TILE;
  let ty = lane / (TILE / 4u) * 4u;
  let tx = lane % (TILE / 4u) * 4u;
  var a0 = vec4<f32>(); var a1 = vec4<f32>(); var a2 = vec4<f32>(); var a3 = vec4<f32>();
  for (var k0 = 0u; k0 < p.k; k0 += 32u) {
    // TILE rows of four groups of eight, of x and of w.
    for (var i = 0u; i < 64u / TILE; i += 1u) {
      let slot = lane + i * (TILE * TILE / 16u);
      let row = slot / 4u;
      let k = (slot % 4u) * 8u;
      var xv = W8(vec4<f32>(), vec4<f32>());
      var wv = W8(vec4<f32>(), vec4<f32>());
      if k0 + k < p.k {
        if t0 + row < p.t {
          let at = ((t0 + row) * p.k + k0 + k) / 4u;
          xv = W8(x[at], x[at + 1u]);
        }
        if n0 + row < p.n { wv = weights8(n0 + row, (k0 + k) / 8u); }
      }
      let at = k * TILE + row;
      xs[at] = xv.lo.x; xs[at + TILE] = xv.lo.y; xs[at + 2u * TILE] = xv.lo.z; xs[at + 3u * TILE] = xv.lo.w;
      xs[at + 4u * TILE] = xv.hi.x; xs[at + 5u * TILE] = xv.hi.y; xs[at + 6u * TILE] = xv.hi.z; xs[at + 7u * TILE] = xv.hi.w;
      ws[at] = wv.lo.x; ws[at + TILE] = wv.lo.y; ws[at + 2u * TILE] = wv.lo.z; ws[at + 3u * TILE] = wv.lo.w;
      ws[at + 4u * TILE] = wv.hi.x; ws[at + 5u * TILE] = wv.hi.y; ws[at + 6u * TILE] = wv.hi.z; ws[at + 7u * TILE] = wv.hi.w;
    }
    workgroupBarrier();
    for (var k = 0u; k < TILE * 32u; k += TILE) {
      let b = vec4<f32>(ws[k + tx], ws[k + tx + 1u], ws[k + tx + 2u], ws[k + tx + 3u]);
      a0 += xs[k + ty] * b;
      a1 += xs[k + ty + 1u] * b;
      a2 += xs[k + ty + 2u] * b;
      a3 += xs[k + ty + 3u] * b;
    }
    workgroupBarrier();
  }
  store(t0 + ty, n0 + tx, a0);
  store(t0 + ty + 1u, n0 + tx, a1);
  store(t0 + ty + 2u, n0 + tx, a2);
  store(t0 + ty + 3u, n0 + tx, a3);
}

fn store(t: u32, n: u32, v: vec4<f32>) {
  if t >= p.t { return; }
  let at = t * p.ldy + p.col0 + n;
  if n < p.n { y[at] = v.x; }
  if n + 1u < p.n { y[at + 1u] = v.y; }
  if n + 2u < p.n { y[at + 2u] = v.z; }
  if n + 3u < p.n { y[at + 3u] = v.w; }
}
