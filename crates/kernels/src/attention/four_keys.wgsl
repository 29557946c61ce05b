// The scores of one key of a cache with four queries; joined after four_queries.wgsl.
// Operands: those of the part it is joined to; of it `p.cap` and `p.softcap` are used here.
// The lanes of a vec4 are the queries.
// Source: Vaswani et al. 2017; soft cap: Gemma 2.

// The slot `ahead` of slot `first`, around the cache's end; ahead <= CAP.
fn slot_of(first: u32, ahead: u32) -> u32 {
  let slot = first + ahead;
  return select(slot, slot - p.cap, slot >= p.cap);
}

// The soft-capped products of the key at index `at`.
fn scores_of(at: u32, n4: u32) -> vec4<f32> {
  var d = vec4<f32>();
  for (var c = 0u; c < n4; c += 1u) {
    let k = key(at, c);
    d += products(c, n4, k);
  }
  if p.softcap > 0.0 {
    d = p.softcap * tanh(clamp(d / p.softcap, vec4<f32>(-15.0), vec4<f32>(15.0)));
  }
  return d;
}
