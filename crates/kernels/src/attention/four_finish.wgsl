// The results of four queries; joined to four_queries.wgsl.
// Operands: those of the part it is joined to; of it `p.t`, `p.nh` and `out` are used here.
// The first HD/4 invocations store four elements of each.
// Source: Dao et al. 2022 (online softmax).

// Stores the means for the tokens from t0 on; zeroes if nothing was seen.
fn finish(sums: ptr<function, Sums>, lane: u32, n4: u32, t0: u32, h: u32) {
  add_teams(sums, lane, n4);
  if lane >= n4 { return; }
  let by = select((*sums).total, vec4<f32>(1.0), (*sums).total == vec4<f32>());
  store(t0, h, n4, lane, (*sums).a0 / by.x);
  store(t0 + 1u, h, n4, lane, (*sums).a1 / by.y);
  store(t0 + 2u, h, n4, lane, (*sums).a2 / by.z);
  store(t0 + 3u, h, n4, lane, (*sums).a3 / by.w);
}

// Tokens beyond the last are not stored.
fn store(t: u32, h: u32, n4: u32, dim: u32, value: vec4<f32>) {
  if t < p.t { out[(t * p.nh + h) * n4 + dim] = value; }
}
