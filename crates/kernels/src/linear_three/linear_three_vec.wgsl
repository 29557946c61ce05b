// Three linears of one x, few rows of it. q[t, n] = sum_k x[t, k] w[n, k]; k with w_k, v with w_v.
// Operands: x f32 [T, K], w, w_k and w_v packed [NQ, K], [NK, K], [NV, K], q, k and v f32 [T, NQ], [T, NK], [T, NV].
// One workgroup computes OUTPUTS outputs of one of the three for up to four rows of x (rows.wgsl); LANES lanes share a row, each takes every LANES-th group of eight elements.
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
  let after_q = blocks(p.nq);
  let after_k = after_q + blocks(p.nk);
  let per_t = after_k + blocks(p.nv);
  let t0 = i / per_t * 4u;
  if t0 >= p.t { return; }
  let block = i % per_t;
  let count = p.k / 8u;
  let at = begins(t0);
  let which = u32(block >= after_q) + u32(block >= after_k);
  let n0 = (block - select(select(after_k, after_q, which == 1u), 0u, which == 0u)) * OUTPUTS;
  let n = n0 + lane / LANES;
  let first = lane % LANES;
  var sum = vec4<f32>();
  if which == 0u {
    for (var g = first; g < count && n < p.nq; g += LANES) {
      sum += products(weights8(n, g), g, at);
    }
  } else if which == 1u {
    for (var g = first; g < count && n < p.nk; g += LANES) {
      sum += products(weights8_k(n, g), g, at);
    }
  } else {
    for (var g = first; g < count && n < p.nv; g += LANES) {
      sum += products(weights8_v(n, g), g, at);
    }
  }
  partial[lane] = sum;
  gather(lane);
  workgroupBarrier();
  if lane < OUTPUTS { store(which, t0, n0 + lane, total(lane * LANES)); }
}
