// Expert choice. ids, w = the K largest logits, softmax over them times scale[id].
// Operands: logits f32 [T, E], scale f32 [E], ids u32 [T, K], w f32 [T, K].
// One invocation chooses for one token: K times the largest logit after the one before, the lower id first.
// Source: Shazeer et al. 2017.
struct Params { t: u32, e: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> w: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let t = (id.x + id.y * groups.x) * 64u + lane;
  if t >= p.t { return; }
  let row = t * p.e;
  var last = 0.0;
  var last_id = 0u;
  var first = 0.0;
  var sum = 0.0;
  for (var j = 0u; j < p.k; j++) {
    var best_id = p.e;
    var best = 0.0;
    for (var i = 0u; i < p.e; i++) {
      let l = logits[row + i];
      let after = j == 0u || l < last || (l == last && i > last_id);
      if after && (best_id == p.e || l > best) {
        best = l;
        best_id = i;
      }
    }
    // Nothing compares with NaN: then the weight says so.
    if best_id == p.e { best_id = 0u; best = logits[row]; }
    if j == 0u { first = best; }
    let weight = exp(best - first);
    ids[t * p.k + j] = best_id;
    w[t * p.k + j] = weight;
    sum += weight;
    last = best;
    last_id = best_id;
  }
  for (var j = 0u; j < p.k; j++) {
    let at = t * p.k + j;
    w[at] = w[at] / sum * scale[ids[at]];
  }
}
