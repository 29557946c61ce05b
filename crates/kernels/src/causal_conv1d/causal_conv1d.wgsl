// Causal depthwise convolution. y = silu(sum_j w[j] u[pos - K + 1 + j]); state[seq, pos mod K] <- u[pos].
// Operands: x f32 [T, C], w f32 [K, C], rows u32 [T, 2], state f32 [NSEQ, K, C] in place, y f32 [T, C].
// One invocation walks one channel of one sequence through its tokens.
// Source: causal_conv1d_fn of transformers.
struct Params { t: u32, c: u32, k: u32, nseq: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (id.x + id.y * groups.x) * 64u + lane;
  if i >= p.nseq * p.c { return; }
  let s = i / p.c;
  let c = i % p.c;
  let base = s * p.k * p.c + c;
  // Tokens of this sequence seen so far: their inputs are in x, older ones in the state.
  var seen = 0u;
  for (var t = 0u; t < p.t; t += 1u) {
    let row = rows[t];
    if row.x != s { continue; }
    var sum = 0.0;
    for (var back = 0u; back < p.k; back += 1u) {
      if back > row.y { break; }
      var u = 0.0;
      if back <= seen {
        u = x[(t - back) * p.c + c];
      } else {
        u = state[base + ((row.y - back) % p.k) * p.c];
      }
      sum += w[(p.k - 1u - back) * p.c + c] * u;
    }
    state[base + (row.y % p.k) * p.c] = x[t * p.c + c];
    y[t * p.c + c] = sum / (1.0 + exp(-clamp(sum, -80.0, 80.0)));
    seen += 1u;
  }
}
