// Stores one output of up to four rows of x (rows.wgsl); joined to linear's products of few rows.
// Operands: y, p.t, p.ldy and p.col0 of the part it is joined to.
// Rows beyond the last are not stored.
// Source: none.
fn store(t: u32, n: u32, sum: vec4<f32>) {
  let at = t * p.ldy + p.col0 + n;
  y[at] = sum.x;
  if ROWS > 1u && t + 1u < p.t { y[at + p.ldy] = sum.y; }
  if ROWS > 2u && t + 2u < p.t { y[at + 2u * p.ldy] = sum.z; }
  if ROWS > 3u && t + 3u < p.t { y[at + 3u * p.ldy] = sum.w; }
}
