// Gates and stores one output of up to four rows of x (rows.wgsl); joined to both variants.
// Operands: y, p.t, p.n and p.act of the part it is joined to.
// Rows beyond the last are not stored.
// Source: Shazeer 2020 (GLU variants).
fn store(t: u32, n: u32, gate: vec4<f32>, up: vec4<f32>) {
  let at = t * p.n + n;
  y[at] = activate(p.act, gate.x) * up.x;
  if ROWS > 1u && t + 1u < p.t { y[at + p.n] = activate(p.act, gate.y) * up.y; }
  if ROWS > 2u && t + 2u < p.t { y[at + 2u * p.n] = activate(p.act, gate.z) * up.z; }
  if ROWS > 3u && t + 3u < p.t { y[at + 3u * p.n] = activate(p.act, gate.w) * up.w; }
}
