// Three linears of one x, few rows of it. q[t, n] = sum_k x[t, k] w[n, k]; k with w_k, v with w_v.
// Operands: x f32 [T, K], w, w_k and w_v packed [NQ, K], [NK, K], [NV, K], q, k and v f32 [T, NQ], [T, NK], [T, NV].
// One workgroup computes eight outputs of one of the three for up to four rows of x (rows.wgsl); eight lanes share a row, each takes every eighth group of eight elements.
// Source: torch.nn.functional.linear.
struct Params { t: u32, k: u32, nq: u32, nk: u32, nv: u32, row_bytes: u32, row_bytes_k: u32, row_bytes_v: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> w_k: array<u32>;
@group(0) @binding(4) var<storage, read> w_v: array<u32>;
@group(0) @binding(5) var<storage, read_write> q: array<f32>;
@group(0) @binding(6) var<storage, read_write> k: array<f32>;
@group(0) @binding(7) var<storage, read_write> v: array<f32>;

var<workgroup> partial: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * groups.x;
  let after_q = (p.nq + 7u) / 8u;
  let after_k = after_q + (p.nk + 7u) / 8u;
  let per_t = after_k + (p.nv + 7u) / 8u;
  let t0 = i / per_t * 4u;
  if t0 >= p.t { return; }
  let block = i % per_t;
  let count = p.k / 8u;
  let at = begins(t0);
  var n = block * 8u + lane / 8u;
  var sum = vec4<f32>();
  if block < after_q {
    for (var g = lane % 8u; g < count && n < p.nq; g += 8u) {
      sum += products(weights8(n, g), g, at);
    }
  } else if block < after_k {
    n -= after_q * 8u;
    for (var g = lane % 8u; g < count && n < p.nk; g += 8u) {
      sum += products(weights8_k(n, g), g, at);
    }
  } else {
    n -= after_k * 8u;
    for (var g = lane % 8u; g < count && n < p.nv; g += 8u) {
      sum += products(weights8_v(n, g), g, at);
    }
  }
  partial[lane] = sum;
  workgroupBarrier();
  if lane % 8u == 0u {
    let a = partial[lane] + partial[lane + 1u] + (partial[lane + 2u] + partial[lane + 3u]);
    let b = partial[lane + 4u] + partial[lane + 5u] + (partial[lane + 6u] + partial[lane + 7u]);
    store(u32(block >= after_q) + u32(block >= after_k), t0, n, a + b);
  }
}
