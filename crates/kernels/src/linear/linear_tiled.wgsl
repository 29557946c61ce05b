// Linear, many rows of x. y[t, col0 + n] = sum_k x[t, k] w[n, k].
// Operands: x f32 [T, K], w packed [N, K], y f32 [T, LDY].
// One workgroup computes a 32 x 32 tile of y, each invocation 4 x 4 of it, from tiles of 32 columns in workgroup memory.
// Source: torch.nn.functional.linear; the classic register-tiled product.
struct Params { t: u32, n: u32, k: u32, ldy: u32, col0: u32, row_bytes: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Transposed: element (k, row) is at k * 32 + row.
var<workgroup> xs: array<f32, 1024>;
var<workgroup> ws: array<f32, 1024>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tile = id.x + id.y * groups.x;
  let tiles_n = (p.n + 31u) / 32u;
  let t0 = (tile / tiles_n) * 32u;
  if t0 >= p.t { return; }
  let n0 = (tile % tiles_n) * 32u;
  let ty = (lane / 8u) * 4u;
  let tx = (lane % 8u) * 4u;
  var a0 = vec4<f32>(); var a1 = vec4<f32>(); var a2 = vec4<f32>(); var a3 = vec4<f32>();
  for (var k0 = 0u; k0 < p.k; k0 += 32u) {
    // 32 rows of four groups of eight: two groups an invocation, of x and of w.
    for (var half = 0u; half < 2u; half += 1u) {
      let slot = lane + half * 64u;
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
      let at = k * 32u + row;
      xs[at] = xv.lo.x; xs[at + 32u] = xv.lo.y; xs[at + 64u] = xv.lo.z; xs[at + 96u] = xv.lo.w;
      xs[at + 128u] = xv.hi.x; xs[at + 160u] = xv.hi.y; xs[at + 192u] = xv.hi.z; xs[at + 224u] = xv.hi.w;
      ws[at] = wv.lo.x; ws[at + 32u] = wv.lo.y; ws[at + 64u] = wv.lo.z; ws[at + 96u] = wv.lo.w;
      ws[at + 128u] = wv.hi.x; ws[at + 160u] = wv.hi.y; ws[at + 192u] = wv.hi.z; ws[at + 224u] = wv.hi.w;
    }
    workgroupBarrier();
    for (var k = 0u; k < 1024u; k += 32u) {
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
