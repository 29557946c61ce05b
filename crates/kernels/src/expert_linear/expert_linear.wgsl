// Linear layers of experts. y[r, n] = sum_k x[r / share, k] w[ids[r] N + n - row0, k], rows of this shard.
// Operands: x f32 [R/share, K], w packed [E*N, K], ids u32 [R], y f32 [R, N].
// One workgroup computes eight outputs of a row; eight lanes share a row of w, each takes every eighth group of eight elements.
// Source: Shazeer et al. 2017.
struct Params { r: u32, n: u32, k: u32, share: u32, row0: u32, rows: u32, row_bytes: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let per_r = (p.n + 7u) / 8u;
  let r = i / per_r;
  if r >= p.r { return; }
  let n = (i % per_r) * 8u + lane / 8u;
  // Rows before the shard wrap around, and are beyond it, too.
  let row = ids[r] * p.n + n - p.row0;
  let mine = n < p.n && row < p.rows;
  var sum = 0.0;
  if mine {
    let count = p.k / 8u;
    let base = (r / p.share) * p.k / 4u;
    for (var g = lane % 8u; g < count; g += 8u) {
      let v = weights8(row, g);
      sum += dot(v.lo, x[base + g * 2u]) + dot(v.hi, x[base + g * 2u + 1u]);
    }
  }
  partial[lane] = sum;
  workgroupBarrier();
  if lane % 8u == 0u && mine {
    let a = partial[lane] + partial[lane + 1u] + (partial[lane + 2u] + partial[lane + 3u]);
    let b = partial[lane + 4u] + partial[lane + 5u] + (partial[lane + 6u] + partial[lane + 7u]);
    y[r * p.n + n] = a + b;
  }
}
